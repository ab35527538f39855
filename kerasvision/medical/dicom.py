"""DICOM slices and series: files, sorted along the normal of their slices, as one volume (DICOM PS3.3).

Only the elements in `_PLACE` and `_PIXELS` are read. All others, the patient's among them, are left in the file.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kerasvision.data.listing import bullet_list
from kerasvision.data.paths import is_clutter
from kerasvision.errors import DataError
from kerasvision.medical.volume import Layout, Volume, Window, WindowFunction
from kerasvision.progress import track

SUFFIXES = (".dcm", ".dicom", ".ima")
Gaps = Literal["stop", "warn"]
_PLACE = [
    "SeriesInstanceUID",
    "SeriesNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
]
_PIXELS = [
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
]
# Neighbours may be so much nearer or further than the usual distance, as a share of it.
_UNEVEN = 0.1
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    """What a file says about its slice; None for what it does not say. Lengths in mm, in LPS+."""

    path: Path
    series: str
    number: str
    size: tuple[int, int]
    photometric: str
    spacing: tuple[float, float] | None
    thickness: float | None
    orientation: np.ndarray | None
    position: np.ndarray | None
    window: Window | None


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError('DICOM files need pydicom: pip install "kerasvision[medical]"') from error
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10, 7.1), but for the index of a disc, DICOMDIR."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"


def read_dicom(path: Path, gaps: Gaps = "stop") -> Volume:
    """Reads one file, or the series in a folder.

    Values are rescaled (RescaleSlope, RescaleIntercept, or the modality's table). The window is that of the middle
    slice.

    Args:
        path: a file; or a folder, of which the images in it are read, not those in folders below.
        gaps: what happens where slices are not evenly apart: "stop" raises, "warn" warns and takes the mean distance.

    Returns:
        The volume, its slices in the order in which they lie along the normal of their plane.

    Raises:
        DataError: nothing there, damaged, in colours, of many frames, of several series, without places, at the same
            place, or compressed in a way that nothing installed can read; the message names the files.
        ImportError: the extra `medical` is missing.
    """
    if gaps not in ("stop", "warn"):
        raise DataError(f'gaps must be "stop" or "warn", got {gaps!r}.')
    slices = _one_series(path, _slices(path))
    first, middle = slices[0], slices[len(slices) // 2]
    step = None
    if len(slices) > 1:
        slices, step = _sorted(path, slices, gaps)
        first, middle = slices[0], slices[len(slices) // 2]
    values = np.empty((len(slices), *first.size), np.float32)
    for index, each in enumerate(track(slices, "Reading DICOM")):
        values[index] = _pixels(each.path)
    return Volume(values, _layout(slices, step), str(path), middle.window, first.photometric == "MONOCHROME1")


def _slices(path: Path) -> list[_Slice]:
    if not path.is_dir():
        one = _header(path)
        if one is None:
            raise DataError(f"{path} holds no image: it is another kind of DICOM file.")
        return [one]
    files = sorted(file for file in path.iterdir() if file.is_file() and not is_clutter(file.name))
    files = [file for file in files if file.suffix.lower() in SUFFIXES or is_dicom(file)]
    found = [each for file in files if (each := _header(file)) is not None]
    if not found:
        below = sorted({file.parent for file in path.rglob("*") if file.suffix.lower() in SUFFIXES})
        hint = f" There are some below it, in {below[0]}." if below else ""
        raise DataError(f"{path} holds no DICOM image. Expected the folder of one series.{hint}")
    return found


def _header(path: Path) -> _Slice | None:
    """What a file says about its slice; None where it is no image, such as a report or a DICOMDIR."""
    pydicom = _pydicom()
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_PLACE)
        if "Rows" not in found:
            kind = found.file_meta.get("MediaStorageSOPClassUID")
            if kind and "Image Storage" not in pydicom.uid.UID(kind).name:
                return None
            raise ValueError("it ends before its image")
        size = int(found.Rows), int(found.Columns)
        frames, samples = int(found.get("NumberOfFrames") or 1), int(found.get("SamplesPerPixel") or 1)
        photometric = str(found.get("PhotometricInterpretation", "MONOCHROME2"))
        read = _Slice(
            path=path,
            series=str(found.get("SeriesInstanceUID", "")),
            number=str(found.get("SeriesNumber") or "without number"),
            size=size,
            photometric=photometric,
            spacing=_numbers(found.get("PixelSpacing") or found.get("ImagerPixelSpacing"), 2),
            thickness=_numbers([found.SliceThickness], 1)[0] if found.get("SliceThickness") else None,
            orientation=_vector(found.get("ImageOrientationPatient"), 6),
            position=_vector(found.get("ImagePositionPatient"), 3),
            window=_window(found),
        )
    # pydicom raises what it stumbles over.
    except Exception as error:
        raise DataError(f"{path} cannot be read as DICOM: truncated or damaged ({error}).") from error
    if frames > 1:
        raise DataError(f"{path} holds {frames} frames. Expected a file for each slice; dcm2niix makes NIfTI of it.")
    if samples > 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"{path} is a picture of kind {photometric}. Expected grey levels (MONOCHROME1 or 2).")
    return read


def _vector(values: Any, count: int) -> np.ndarray | None:
    if not values:
        return None
    vector = np.array([float(value) for value in values])
    if len(vector) != count or not np.isfinite(vector).all():
        raise ValueError(f"expected {count} numbers of its place, got {len(vector)}")
    return vector


def _numbers(values: Any, count: int) -> Any:
    """So many distances above 0; None where there are none."""
    vector = _vector(values, count)
    if vector is not None and vector.min() <= 0:
        raise ValueError(f"expected distances above 0, got {vector.tolist()}")
    return None if vector is None else tuple(vector.tolist())


def _window(found: Any) -> Window | None:
    """The first window of a file; None where it has none that can be used."""
    center, width = (found.get(name) for name in ("WindowCenter", "WindowWidth"))
    if center in (None, "") or width in (None, ""):
        return None
    center, width = (np.atleast_1d(np.array(each, float))[0] for each in (center, width))
    function: Any = str(found.get("VOILUTFunction") or "LINEAR").lower()
    try:
        return Window(float(center), float(width), function if function in get_args(WindowFunction) else "linear")
    except ValueError:
        return None


def _one_series(path: Path, slices: list[_Slice]) -> list[_Slice]:
    """Makes sure that slices are of one series, one size and one direction."""
    series: dict[str, list[_Slice]] = {}
    for each in slices:
        series.setdefault(each.series, []).append(each)
    if len(series) > 1:
        listed = [
            f"series {found[0].number}: {len(found)} files, such as {found[0].path.name}" for found in series.values()
        ]
        raise DataError(
            f"{path} holds {len(series)} series:\n{bullet_list(listed)}\nPut each into a folder of its own."
        )
    first = slices[0]
    for each in slices[1:]:
        pairs: list[tuple[str, Any, Any]] = [
            ("pixels", first.size, each.size),
            ("kind", first.photometric, each.photometric),
            ("spacing", first.spacing, each.spacing),
            ("direction", first.orientation, each.orientation),
        ]
        for what, one, other in pairs:
            alike = one is other if one is None or other is None else one == other
            if what in ("spacing", "direction") and one is not None and other is not None:
                alike = np.allclose(one, other, atol=1e-3)
            if not alike:
                raise DataError(
                    f"{first.path} and {each.path} are of one series, but differ in their {what}: {_text(one)} and "
                    f"{_text(other)}. Put the slices of one volume into a folder of their own, without localizers."
                )
    return slices


def _text(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def _sorted(path: Path, slices: Sequence[_Slice], gaps: Gaps) -> tuple[list[_Slice], np.ndarray]:
    """Slices along the normal of their plane, and the step from one to the next, [3] in LPS+."""
    lost = [str(each.path) for each in slices if each.position is None or each.orientation is None]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(slices)} files in {path} do not say where their slice lies "
            f"(ImagePositionPatient, ImageOrientationPatient):\n{bullet_list(lost)}\nRead them one by one."
        )
    directions: Any = slices[0].orientation
    normal = np.cross(directions[:3], directions[3:])
    ordered = sorted(slices, key=lambda each: float(np.dot(normal, each.position)))  # type: ignore[arg-type]
    steps = np.diff([each.position for each in ordered], axis=0)
    heights = steps @ normal
    usual = np.median(steps, axis=0)
    # Of a place that is there twice, no distance is left.
    least = max(1e-3, 0.01 * float(np.median(heights)))
    for index, height in enumerate(heights):
        if height < least:
            raise DataError(
                f"{ordered[index].path} and {ordered[index + 1].path} lie at the same place. Expected one slice for "
                "each: put the phases or echoes of a series into folders of their own."
            )
    away = np.linalg.norm(steps - usual, axis=1)
    worst = int(away.argmax())
    if away[worst] > _UNEVEN * np.linalg.norm(usual):
        message = (
            f"{path}: slices are {np.linalg.norm(usual):.4g} mm apart, but {ordered[worst].path.name} and "
            f"{ordered[worst + 1].path.name} {np.linalg.norm(steps[worst]):.4g} mm. A slice is missing, or they are "
            "not parallel slices of one volume."
        )
        if gaps == "stop":
            raise DataError(f'{message} Add the missing ones, or read with gaps="warn".')
        warnings.warn(f"{message} The mean distance is taken.", stacklevel=5)
    return ordered, steps.mean(axis=0)


def _layout(slices: Sequence[_Slice], step: np.ndarray | None) -> Layout:
    """Where slices lie; nothing is known of a picture without spacing, such as most radiographs."""
    first = slices[0]
    shape = (first.size[1], first.size[0], len(slices))
    directions = np.array(_AXIAL) if first.orientation is None else first.orientation
    if step is None and first.thickness is not None:
        step = np.cross(directions[:3], directions[3:]) * first.thickness
    if step is None or first.spacing is None:
        return Layout(shape)
    affine = np.eye(4)
    # Along a row the column changes, and PixelSpacing begins with the distance of rows (PS3.3, 10.7.1.3).
    affine[:3, 0] = directions[:3] * first.spacing[1]
    affine[:3, 1] = directions[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = 0 if first.position is None else first.position
    return Layout(shape, affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, code=1)


def _pixels(path: Path) -> np.ndarray:
    """What the pixels of a file mean, [H, W]."""
    pydicom = _pydicom()
    syntax = None
    try:
        found = pydicom.dcmread(path, specific_tags=_PIXELS)
        syntax = found.file_meta.get("TransferSyntaxUID")
        return pydicom.pixels.apply_modality_lut(found.pixel_array, found)
    except Exception as error:
        reason = f"truncated or damaged ({error})."
        if syntax is not None and syntax.is_compressed:
            reason = _decoders(syntax, error)
        raise DataError(f"{path}: its pixels cannot be read: {reason}") from error


def _decoders(syntax: Any, error: Exception) -> str:
    """Why pixels of a compressed transfer syntax cannot be read, and which packages decode it."""
    try:
        decoder = _pydicom().pixels.get_decoder(syntax)
    except NotImplementedError:
        return f"no decoder is known for {syntax.name}. Convert the file, as dcmdjpeg or gdcmconv do."
    # "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-libjpeg>=2.1"
    needed = [way.split(" - requires ")[-1].split(" and ") for way in decoder.missing_dependencies]
    commands = [" ".join(["pip install", *(f'"{package}"' for package in way if package != "numpy")]) for way in needed]
    others = " | ".join(commands)
    if not decoder.is_available:
        return f"compressed as {syntax.name}, and no decoder for that is installed. One is enough: {others}"
    return f"damaged, or of a kind of {syntax.name} that the decoder does not know ({error}). Other decoders: {others}"
