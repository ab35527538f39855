"""NIfTI: every way that axes can lie reads as the same slices, and is written back as it lay."""

import itertools
import sys

import nibabel
import numpy as np
import pytest
from medical import make

from kerasvision.errors import DataError
from kerasvision.medical import find_volumes, read_volume
from kerasvision.medical.nifti import write_nifti

STEP = np.diag([0.7, 0.9, 3.0, 1.0])


def oriented(values, affine, axes, flips):
    """The same volume with its axes in another order and direction."""
    orientation = np.array([(axis, sign) for axis, sign in zip(axes, flips, strict=True)], float)
    moved = nibabel.orientations.apply_orientation(values, orientation)
    return moved, affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape)


def tilted(degrees=12):
    """An affine that is turned about the x axis, and stands off the origin."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = [-31.5, 12.25, 80]
    return turn @ STEP


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_every_orientation_gives_the_same_slices(tmp_path, axes):
    right_anterior_superior = np.random.default_rng(0).integers(-900, 900, (5, 6, 4)).astype(np.int16)
    for flips in itertools.product((1, -1), repeat=3):
        stored, affine = oriented(right_anterior_superior, tilted(), axes, flips)
        path = make.write_nifti(tmp_path / "scan.nii.gz", stored, affine)
        volume = read_volume(path)
        # Slices go up, rows to the back, columns to the left.
        expected = right_anterior_superior[::-1, ::-1].transpose(2, 1, 0)
        np.testing.assert_array_equal(volume.values, expected)
        assert volume.values.dtype == np.int16 and volume.values.flags.c_contiguous
        np.testing.assert_allclose(volume.spacing, (3, 0.9, 0.7), rtol=1e-5)
        for voxel in ((0, 0, 0), (3, 5, 4), (2, 1, 3)):
            own = (4 - voxel[2], 5 - voxel[1], voxel[0])
            np.testing.assert_allclose(volume.affine[:3] @ [*voxel, 1], (tilted() @ [*own, 1])[:3], atol=1e-4)
        write_nifti(tmp_path / "classes.nii.gz", (volume.values > 0).astype(np.uint8), volume.layout)
        written = nibabel.load(tmp_path / "classes.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), stored > 0)
        np.testing.assert_array_equal(written.affine, nibabel.load(path).affine)
        assert written.get_data_dtype() == np.uint8 and written.header.get_xyzt_units()[0] == "mm"


def test_planes(tmp_path):
    values = np.arange(5 * 6 * 4).reshape(5, 6, 4).astype(np.int16)
    path = make.write_nifti(tmp_path / "scan.nii", values, STEP)
    coronal, sagittal = (read_volume(path, plane=plane) for plane in ("coronal", "sagittal"))
    np.testing.assert_array_equal(coronal.values, values[::-1, ::-1, ::-1].transpose(1, 2, 0))
    np.testing.assert_array_equal(sagittal.values, values[::-1, ::-1, ::-1].transpose(0, 2, 1))
    np.testing.assert_allclose(coronal.spacing, (0.9, 3, 0.7), rtol=1e-6)
    for volume in (coronal, sagittal):
        write_nifti(tmp_path / "again.nii", volume.values.astype(np.uint8), volume.layout)
        np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / "again.nii").dataobj), values)
    with pytest.raises(DataError, match='axial, coronal, sagittal, got "frontal"'):
        read_volume(path, plane="frontal")


def test_scaling_units_and_other_axes(tmp_path):
    values = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    scaled = make.write_nifti(tmp_path / "scaled.nii.gz", values, np.eye(4), slope=(0.5, -7))
    volume = read_volume(scaled)
    assert volume.values.dtype == np.float32 and volume.window is None and not volume.inverted
    np.testing.assert_allclose(np.sort(volume.values.ravel()), np.arange(24) * 0.5 - 7)
    micron = read_volume(make.write_nifti(tmp_path / "micron.nii", values, STEP, unit="micron"))
    np.testing.assert_allclose(micron.spacing, (0.003, 0.0009, 0.0007))
    write_nifti(tmp_path / "written.nii", np.zeros((4, 3, 2), np.uint8), micron.layout)
    written = nibabel.load(tmp_path / "written.nii")
    assert written.header.get_xyzt_units()[0] == "micron" and written.header["sform_code"] == 1
    np.testing.assert_allclose(written.affine, STEP, rtol=1e-6)
    for shape in ((2, 3, 4, 1), (5, 6)):
        path = make.write_nifti(tmp_path / "shape.nii", np.zeros(shape, np.uint8), STEP)
        volume = read_volume(path)
        assert volume.values.shape == ((4, 3, 2) if len(shape) == 4 else (1, 6, 5))
        write_nifti(tmp_path / "same.nii", volume.values, volume.layout)
        assert nibabel.load(tmp_path / "same.nii").shape == nibabel.load(path).shape
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), header), tmp_path / "big.nii")
    big = read_volume(tmp_path / "big.nii").values
    assert big.dtype == np.dtype("=i2") and big[0, -1, -1] == 0 and big.max() == 23


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (3, 0), (4, 1)])
def test_spaces_are_kept(tmp_path, codes):
    image = nibabel.Nifti1Image(np.zeros((5, 6, 4), np.int16), STEP)
    image.set_sform(tilted() if codes[0] else None, code=codes[0])
    image.set_qform(tilted(12), code=codes[1])
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    write_nifti(tmp_path / "classes.nii", volume.values.astype(np.uint8), volume.layout)
    source, written = nibabel.load(tmp_path / "scan.nii"), nibabel.load(tmp_path / "classes.nii")
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)
    assert written.header["sform_code"] == (codes[0] or codes[1])


@pytest.mark.parametrize(("package", "name"), [("nibabel", "scan.nii"), ("pydicom", "slice.dcm")])
def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'need {package}: pip install "kerasvision\[medical\]"'):
        read_volume(tmp_path / name)


def test_files_that_cannot_be_used(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
    whole = make.write_nifti(tmp_path / "whole.nii.gz", values, STEP).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    plain = make.write_nifti(tmp_path / "plain.nii", values, STEP).read_bytes()
    (tmp_path / "cut.nii").write_bytes(plain[: len(plain) // 2])
    (tmp_path / "text.nii").write_text("no volume at all")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    for name in ("cut.nii.gz", "cut.nii", "text.nii", "empty.nii.gz"):
        with pytest.raises(DataError, match=f"{name} cannot be read as NIfTI: truncated or damaged"):
            read_volume(tmp_path / name)
    series = make.write_nifti(tmp_path / "series.nii", np.zeros((3, 4, 5, 6), np.uint8), STEP)
    with pytest.raises(DataError, match=r"series.nii has the axes \[3, 4, 5, 6\]"):
        read_volume(series)
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, STEP), tmp_path / "colours.nii")
    with pytest.raises(DataError, match=r"colours.nii: voxels of type .*Expected one number"):
        read_volume(tmp_path / "colours.nii")
    axes = [nibabel.cifti2.ScalarAxis(["a"]), nibabel.cifti2.BrainModelAxis.from_mask(np.ones(3), "cortex_left")]
    nibabel.save(nibabel.Cifti2Image(np.zeros((1, 3)), axes), tmp_path / "surface.nii")
    with pytest.raises(DataError, match=r"surface.nii holds a Cifti2Image"):
        read_volume(tmp_path / "surface.nii")
    flat = np.diag([1.0, 1, 0, 1])
    image = nibabel.Nifti1Image(values, STEP)
    image.set_sform(flat, code=1)
    nibabel.save(image, tmp_path / "flat.nii")
    with pytest.raises(DataError, match=r"flat.nii: its affine cannot place voxels"):
        read_volume(tmp_path / "flat.nii")
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "nothing.nii")
    with pytest.raises(DataError, match="spacing is for TIFF"):
        read_volume(tmp_path / "plain.nii", spacing=(1, 1, 1))
    with pytest.raises(DataError, match=r"name of a .nii or .nii.gz file to write, got .*classes.png"):
        write_nifti(tmp_path / "classes.png", values.astype(np.uint8), read_volume(tmp_path / "plain.nii").layout)


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    volume = read_volume(make.write_nifti(tmp_path / "scan.nii", np.zeros((3, 4, 5), np.uint8), STEP))

    def fail(image, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_nifti(tmp_path / "classes.nii.gz", volume.values, volume.layout)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii"]


def test_volumes_are_found(tmp_path):
    scan = make.write_nifti(tmp_path / "set" / "b.nii.gz", np.zeros((3, 4, 5), np.uint8), STEP)
    series = make.write_series(tmp_path / "set" / "ct", make.body((3, 8, 8)))
    (tmp_path / "set" / "notes.txt").write_text("x")
    (tmp_path / "set" / ".hidden.nii").write_bytes(b"")
    # The index of a disc is no volume.
    (tmp_path / "set" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert find_volumes(tmp_path / "set") == [scan, series]
    assert find_volumes(scan) == [scan] and find_volumes(series) == [series]
    assert find_volumes(tmp_path / "set" / "notes.txt") == []
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    assert find_volumes(tmp_path / "pictures") == []
    (tmp_path / "set" / "ct" / "look.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds images \(look.jpg\) and volumes \(b.nii.gz\)"):
        find_volumes(tmp_path / "set")
