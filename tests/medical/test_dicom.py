"""DICOM: slices in their order and place, values as they are meant, and errors that name the file."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from medical import make
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, BasicTextSRStorage, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from kerasvision.errors import DataError
from kerasvision.medical import Window, read_volume

SHAPE = (5, 12, 16)


def oblique():
    """Directions of rows and columns, [6], turned twice."""
    a, b = np.deg2rad([25, -17])
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turned = (first @ second).T
    return [round(float(value), 8) for value in (*turned[0], *turned[1])]


@pytest.mark.parametrize("directions", [make.AXIAL, (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), oblique()])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_series_lies_where_its_files_say(tmp_path, directions, sign):
    values = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    normal = np.cross(directions[:3], directions[3:])
    step, first = sign * 3.5 * normal, np.array([-90.5, 20.25, 7])
    folder = make.write_series(
        tmp_path / "ct", values, np.round(step, 6), first, ImageOrientationPatient=list(directions)
    )
    volume = read_volume(folder)
    ordered = values if sign == 1 else values[::-1]
    np.testing.assert_array_equal(volume.values, ordered)
    np.testing.assert_allclose(volume.spacing, (3.5, 0.8, 0.5), rtol=1e-5)
    for index, row, column in ((0, 0, 0), (4, 11, 15), (2, 3, 9)):
        own = index if sign == 1 else SHAPE[0] - 1 - index
        # PS3.3, C.7.6.2.1.1, in LPS+; x and y point the other way in RAS+.
        place = first + own * step + column * 0.5 * np.array(directions[:3]) + row * 0.8 * np.array(directions[3:])
        np.testing.assert_allclose(volume.affine[:3] @ [index, row, column, 1], place * [-1, -1, 1], atol=1e-4)
    assert volume.window == Window(40, 400) and not volume.inverted
    assert volume.voxel_ml == pytest.approx(0.8 * 0.5 * 3.5 / 1000, rel=1e-5)


def test_a_slice_lies_where_nibabel_finds_it(tmp_path):
    made = make.dataset(np.zeros((12, 16)), (7, -8.5, 99), ImageOrientationPatient=oblique())
    found = read_volume(make.save(made, tmp_path / "slice.dcm"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That nibabel's reader is experimental.
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    # (row, column, slice) -> LPS+.
    other = wrapper_from_data(made).affine
    np.testing.assert_allclose(found.affine[:3, [1, 2, 3]], np.diag([-1, -1, 1]) @ other[:3, [0, 1, 3]], atol=1e-6)


def test_what_values_mean(tmp_path):
    pixels = np.arange(192).reshape(12, 16)
    for slope, intercept in ((1, -1024), (0.25, 10), (None, None)):
        path = make.save(make.dataset(pixels, RescaleSlope=slope, RescaleIntercept=intercept), tmp_path / "a.dcm")
        np.testing.assert_allclose(read_volume(path).values[0], pixels * (slope or 1) + (intercept or 0))
    # Of a PET each slice may be scaled by its own factor.
    for index in range(3):
        made = make.dataset(pixels, (0, 0, index), RescaleSlope=1 + index, RescaleIntercept=0)
        make.save(made, tmp_path / "pet" / f"{index}.dcm")
    np.testing.assert_allclose(read_volume(tmp_path / "pet").values, pixels * np.array([1, 2, 3])[:, None, None])
    unsigned = make.dataset(pixels + 40000 - 65536, PixelRepresentation=0, RescaleIntercept=0)
    make.save(unsigned, tmp_path / "unsigned.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path / "unsigned.dcm").values[0], pixels + 40000)


def test_windows_and_inverted_pictures(tmp_path):
    pixels = np.arange(192).reshape(12, 16) + 1024
    expected = {
        "one": ({"WindowCenter": 50, "WindowWidth": 80.5}, Window(50, 80.5)),
        "exact": ({"VOILUTFunction": "LINEAR_EXACT"}, Window(40, 400, "linear_exact")),
        "missing": ({"WindowWidth": None}, None),
        "neither": ({"WindowCenter": None, "WindowWidth": None}, None),
        "empty": ({"WindowCenter": "", "WindowWidth": ""}, None),
        "impossible": ({"WindowWidth": 0}, None),
    }
    for name, (changes, window) in expected.items():
        made = make.dataset(pixels, PhotometricInterpretation="MONOCHROME1", **changes)
        volume = read_volume(make.save(made, tmp_path / f"{name}.dcm"))
        assert volume.window == window and volume.inverted
        np.testing.assert_array_equal(volume.values[0], pixels - 1024)
        shown = volume.images()[0].ravel().astype(int)
        assert (np.diff(shown) <= 0).all() and shown[0] > shown[-1]


def test_single_slices(tmp_path):
    pixels = np.zeros((12, 16))
    volume = read_volume(make.save(make.dataset(pixels, (1, 2, 3)), tmp_path / "IM0001"))
    assert volume.values.shape == (1, 12, 16)
    np.testing.assert_allclose(volume.spacing, (2.5, 0.8, 0.5))
    np.testing.assert_allclose(volume.affine[:3, 3], (-1, -2, 3))
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "SliceThickness": None}
    radiograph = make.dataset(pixels, PixelSpacing=None, ImagerPixelSpacing=[0.1, 0.1])
    for name in nowhere:
        delattr(radiograph, name)
    assert read_volume(make.save(radiograph, tmp_path / "x.dcm")).affine is None


def test_compressed_files(tmp_path):
    values = make.body(SHAPE)
    for index, one in enumerate(values):
        made = make.dataset(one + 1024, (0, 0, index))
        made.compress(RLELossless)
        make.save(made, tmp_path / "rle" / f"{index}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path / "rle").values, values)
    for syntax, expected in (
        (JPEGLosslessSV1, r'compressed as JPEG Lossless.*pip install "pylibjpeg>=.*" "pylibjpeg-libjpeg>='),
        (JPEG2000Lossless, r"damaged, or of a kind of JPEG 2000.*Other decoders: .*pylibjpeg-openjpeg"),
        (MPEG4HP41, r"no decoder is known for MPEG-4.*Convert the file"),
    ):
        made = make.dataset(values[0])
        made.PixelData = encapsulate([b"\xff\xd8\xff\xd9" * 8])
        made["PixelData"].VR = "OB"
        made.file_meta.TransferSyntaxUID = syntax
        make.save(made, tmp_path / "jpeg.dcm")
        with pytest.raises(DataError, match=rf"(?s)jpeg.dcm: its pixels cannot be read: {expected}"):
            read_volume(tmp_path / "jpeg.dcm")


def test_one_slice_of_a_scanner_in_six_encodings():
    """Files that come with pydicom."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    plain = read_volume(folder / "MR_small.dcm")
    assert plain.window == Window(600, 1600) and (plain.values.min(), plain.values.max()) == (127, 2145)
    np.testing.assert_allclose(plain.spacing, (0.8, 0.3125, 0.3125))
    for name in ("RLE", "bigendian", "implicit", "expb", "jp2klossless"):
        other = read_volume(folder / f"MR_small_{name}.dcm")
        np.testing.assert_array_equal(other.values, plain.values)
        np.testing.assert_array_equal(other.affine, plain.affine)
    for name, expected in {
        "MR_truncated.dcm": "truncated or damaged .*8130 vs 8192 bytes",
        "MR_small_jpeg_ls_lossless.dcm": "compressed as JPEG-LS.*pyjpegls",
        "JPEG-lossy.dcm": "12-bit.*Other decoders: .*pylibjpeg-libjpeg",
        "badVR.dcm": "truncated or damaged",
    }.items():
        with pytest.raises(DataError, match=f"(?s){name}.*{expected}"):
            read_volume(folder / name)


def test_folders_that_are_no_single_series(tmp_path):
    values = make.body(SHAPE)
    make.write_series(tmp_path / "mixed", values)
    for index in range(2):
        made = make.dataset(values[0], (0, 0, index), series="9.9.9", SeriesNumber=7)
        make.save(made, tmp_path / "mixed" / f"other{index}.dcm")
    expected = (
        r"mixed holds 2 series:\n.*series 4: 5 files, such as IM0000.dcm\n.*series 7: 2 files, such as other0.dcm"
    )
    with pytest.raises(DataError, match=expected):
        read_volume(tmp_path / "mixed")
    localizer = make.dataset(values[0], (0, 0, 99), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    other_size = make.dataset(values[0, :8], (0, 0, 99))
    other_spacing = make.dataset(values[0], (0, 0, 99), PixelSpacing=[0.9, 0.5])
    for made, what in ((localizer, "direction"), (other_size, "pixels"), (other_spacing, "spacing")):
        shutil.rmtree(tmp_path / "ct", ignore_errors=True)
        make.write_series(tmp_path / "ct", values)
        make.save(made, tmp_path / "ct" / "ZZ.dcm")
        with pytest.raises(DataError, match=rf"IM0000.dcm and .*ZZ.dcm are of one series.*their {what}"):
            read_volume(tmp_path / "ct")
    # What is no image stands in many folders.
    shutil.rmtree(tmp_path / "ct")
    make.write_series(tmp_path / "ct", values)
    report = make.dataset(values[0])
    del report.PixelData, report.Rows, report.Columns
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    make.save(report, tmp_path / "ct" / "report.dcm")
    (tmp_path / "ct" / "notes.txt").write_text("seen")
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").values, values)
    with pytest.raises(DataError, match=r"report.dcm holds no image"):
        read_volume(tmp_path / "ct" / "report.dcm")
    with pytest.raises(DataError, match=r"holds no DICOM image.*There are some below it, in .*ct"):
        read_volume(tmp_path)


def test_slices_that_are_missing_or_twice(tmp_path):
    values = make.body((7, 12, 16))
    folder = make.write_series(tmp_path / "ct", values)
    places = {float(pydicom.dcmread(file).ImagePositionPatient[2]): file for file in folder.iterdir()}
    third = places[35.0]
    moved = tmp_path / "away.dcm"
    third.rename(moved)
    expected = rf"2.5 mm apart, but {places[32.5].name} and {places[37.5].name} 5 mm"
    with pytest.raises(DataError, match=expected):
        read_volume(folder)
    with pytest.warns(UserWarning, match=expected):
        volume = read_volume(folder, gaps="warn")
    assert volume.spacing[0] == pytest.approx(3)
    moved.rename(third)
    twice = pydicom.dcmread(third)
    twice.SOPInstanceUID = "1.2.3.4"
    make.save(twice, folder / "again.dcm")
    with pytest.raises(DataError, match=rf"{third.name} and .*again.dcm lie at the same place"):
        read_volume(folder)
    (folder / "again.dcm").unlink()
    lost = pydicom.dcmread(third)
    del lost.ImagePositionPatient
    make.save(lost, third)
    with pytest.raises(DataError, match=rf"1 of 7 files in .* do not say where their slice lies.*\n.*{third.name}"):
        read_volume(folder)
    # Steps of rounded numbers are no gaps.
    rounded = tmp_path / "rounded"
    for index in range(9):
        make.save(make.dataset(values[0], (0, 0, round(index * 0.62, 2) + 0.01 * (index % 2))), rounded / f"{index}")
    assert read_volume(rounded).spacing[0] == pytest.approx(0.62, rel=0.01)


def test_a_tilted_gantry_is_sheared(tmp_path):
    volume = read_volume(make.write_series(tmp_path / "ct", make.body(SHAPE), step=(0, 1.0, 2.5)))
    assert volume.spacing[0] == pytest.approx(np.hypot(1, 2.5))
    assert volume.voxel_ml == pytest.approx(0.8 * 0.5 * 2.5 / 1000)


def test_files_that_cannot_be_used(tmp_path):
    pixels = make.body((1, 64, 64))[0]
    whole = make.save(make.dataset(pixels), tmp_path / "whole.dcm").read_bytes()
    for name, content in {
        "cut.dcm": whole[:-2000],
        "header.dcm": whole[:600],
        "text.dcm": b"no DICOM" * 40,
        "empty.dcm": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.*truncated or damaged"):
            read_volume(tmp_path / name)
    for name, changes, expected in (
        ("frames", {"NumberOfFrames": 3}, "holds 3 frames"),
        ("colour", {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "a picture of kind RGB"),
        ("palette", {"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ("spacing", {"PixelSpacing": [0, 0.5]}, r"distances above 0, got \[0.0, 0.5\]"),
        ("direction", {"ImageOrientationPatient": [1, 0, 0]}, "expected 6 numbers of its place, got 3"),
    ):
        make.save(make.dataset(pixels, **changes), tmp_path / f"{name}.dcm")
        with pytest.raises(DataError, match=rf"{name}.dcm.*{expected}"):
            read_volume(tmp_path / f"{name}.dcm")
    with pytest.raises(DataError, match="plane is for NIfTI"):
        read_volume(tmp_path / "whole.dcm", plane="axial")
    with pytest.raises(DataError, match="gaps must be"):
        read_volume(tmp_path / "whole.dcm", gaps="skip")
