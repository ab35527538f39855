"""Small DICOM and NIfTI files, with personal fields that must never be seen again."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from kerasvision.class_maps import VOID
from kerasvision.preprocessing import Preprocessing
from kerasvision.runtime import Predictor
from kerasvision.segmentation import SegmentationTask

PERSONAL = {
    "PatientName": "Zyxgood^Querta",
    "PatientID": "QX-774411-PID",
    "PatientBirthDate": "19371123",
    "PatientAddress": "17 Vexington Row",
    "ReferringPhysicianName": "Wobblethorpe^Ada",
    "InstitutionName": "Krankenhaus Ypsilonia",
    "AccessionNumber": "ACC99887766",
    "StudyDescription": "follow-up of Zyxgood",
    "ImageComments": "seen by Wobblethorpe",
    "StudyDate": "20190704",
}
SECRETS = ("Zyxgood", "Querta", "774411", "19371123", "Vexington", "Wobblethorpe", "Ypsilonia", "99887766", "20190704")
AXIAL = (1, 0, 0, 0, 1, 0)


def dataset(pixels, position=(0, 0, 0), series="1.2.3", **changes) -> FileDataset:
    """A CT slice of 16 bits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = np.asarray(pixels)
    values = {
        **PERSONAL,
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CT",
        "SeriesInstanceUID": series,
        "SeriesNumber": 4,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [0.8, 0.5],
        "SliceThickness": 2.5,
        "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": list(position),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "WindowCenter": [40, 300],
        "WindowWidth": [400, 1500],
        **changes,
    }
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    made.PixelData = pixels.astype(np.int16).tobytes()
    return made


def save(made: pydicom.Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, values, step=(0, 0, 2.5), first=(-10, -20, 30), **changes) -> Path:
    """Slices whose names do not tell their order; `values` are what the pixels mean."""
    values = np.asarray(values)
    order = np.random.default_rng(3).permutation(len(values))
    for index, one in enumerate(values):
        position = [float(start + index * each) for start, each in zip(first, step, strict=True)]
        made = dataset(one + 1024, position, InstanceNumber=int(order[index]), **changes)
        save(made, folder / f"IM{order[index]:04}.dcm")
    return folder


def write_nifti(path: Path, values, affine, *, slope=None, unit="mm", code=1) -> Path:
    """A volume whose header has free text that may name a patient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.asarray(values), affine)
    image.header["descrip"] = b"scan of Zyxgood"
    image.header["aux_file"] = b"Vexington"
    image.header["db_name"] = b"774411"
    image.header.set_xyzt_units(unit)
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


class ByBrightness:
    """An engine that knows three classes: dark, grey and bright pixels."""

    format = "keras"
    outputs = ("classes",)
    labels = ("background", "soft", "bone")

    def __init__(self, size=(32, 40), margin=0):
        task = SegmentationTask(labels=self.labels, image_size=size)
        self.margin = margin
        self.metadata = {
            "task": {"name": task.name, **task.get_config()},
            "name": "by_brightness",
            "preprocessing": Preprocessing().get_config(),
            "image_size": size,
            "channels": 1,
            "quantization": "none",
        }

    def with_probabilities(self):
        return self

    def run(self, images):
        classes = np.digitize(images[..., 0], [100, 200]).astype(np.float32)
        if m := self.margin:
            inside = np.zeros(classes.shape[1:], bool)
            inside[m:-m, m:-m] = True
            classes[:, ~inside] = VOID
        return {"classes": classes}


def predictor(**arguments) -> Predictor:
    return Predictor(ByBrightness(**arguments), Path("by_brightness.keras"), "keras")


def body(shape, seed=0):
    """Hounsfield units of a body with a bone in it, [slices, H, W]."""
    random = np.random.default_rng(seed)
    values = np.full(shape, -1000, np.int16)
    slices, height, width = shape
    values[:, height // 6 : -height // 5, width // 5 : -width // 4] = random.integers(20, 60)
    for index in range(slices):
        top = height // 4 + index % 3
        values[index, top : top + 4, width // 3 : width // 3 + 3 + index % 2] = 900
    return values
