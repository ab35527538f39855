"""TIFF and PNG of 8, 16 and 32 bits as volumes, and images of few bits in files of 16."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasvision as kv
from kerasvision.data.decode import read_image
from kerasvision.errors import DataError
from kerasvision.medical import Window, read_volume


def pages(path, values):
    first, *rest = (Image.fromarray(page) for page in values)
    first.save(path, save_all=True, append_images=rest)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_pages_are_slices(tmp_path, kind):
    values = (np.random.default_rng(0).random((3, 8, 9)) * 60000).astype(kind)
    volume = read_volume(pages(tmp_path / "stack.tif", values), spacing=(2, 0.5, 0.25))
    np.testing.assert_array_equal(volume.values, values)
    assert volume.values.dtype == kind and volume.spacing == (2, 0.5, 0.25)
    assert volume.voxel_ml == pytest.approx(0.25 / 1000)
    # Slices go up, rows to the back, columns to the left.
    np.testing.assert_array_equal(np.diag(volume.affine[:3, [2, 1, 0]]), [-0.25, -0.5, 2])
    assert read_volume(tmp_path / "stack.tif").spacing is None


def test_a_png_of_16_bits(tmp_path):
    values = np.arange(72, dtype=np.uint16).reshape(8, 9) * 50
    Image.fromarray(values).save(tmp_path / "scan.png")
    volume = read_volume(tmp_path / "scan.png")
    np.testing.assert_array_equal(volume.values[0], values)
    np.testing.assert_array_equal(volume.images(Window(1000, 500))[0], Window(1000, 500)(values))


def test_files_that_cannot_be_used(tmp_path):
    values = np.zeros((2, 64, 64), np.uint16)
    whole = pages(tmp_path / "whole.tif", values).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:3000])
    with pytest.raises(DataError, match=r"cut.tif cannot be read as TIFF or PNG: truncated or damaged"):
        read_volume(tmp_path / "cut.tif")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text.png cannot be read as TIFF or PNG"):
        read_volume(tmp_path / "text.png")
    pages(tmp_path / "sizes.tif", [values[0], values[0, :9]])
    with pytest.raises(DataError, match=r"sizes.tif has pages of 64 x 64 \(uint16\) and 64 x 9"):
        read_volume(tmp_path / "sizes.tif")
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r'colour.png: pixels of mode "RGB"'):
        read_volume(tmp_path / "colour.png")
    with pytest.raises(DataError, match="three distances above 0"):
        read_volume(tmp_path / "whole.tif", spacing=(1, 0, 1))


@pytest.mark.parametrize("name", ["scan.png", "scan.tif"])
def test_images_of_12_bits_are_not_made_black(tmp_path, name):
    """Scaled as 16 bits, 4,096 values would become 16 grey levels without a word."""
    values = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: 16 bits a pixel, but no value above 4080 of 65535.*read_volume"):
        read_image(tmp_path / name)
    np.testing.assert_array_equal(
        read_volume(tmp_path / name).images(Window(2040, 4080, "linear_exact"))[0].ravel(), np.arange(256)
    )
    # Black images are black, and whole ranges are scaled.
    Image.fromarray(values * 0).save(tmp_path / name)
    assert read_image(tmp_path / name).max() == 0
    Image.fromarray(values * 16).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], np.rint(values * 16 / 257))


def test_sets_name_images_of_few_bits(tmp_path):
    random = np.random.default_rng(0)
    for index in range(6):
        values = random.integers(0, 65536, (16, 16)).astype(np.uint16)
        file = tmp_path / "set" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values // (32 if index == 5 else 1)).save(file)
    with pytest.raises(DataError, match=r"1 of 6.*\n.*5.png: 16 bits a pixel"):
        kv.load_data(tmp_path / "set")
    data = kv.load_data(tmp_path / "set", on_bad_files="skip", validation_fraction=0)
    assert len(data.splits["train"]) == 5 and len(data.skipped) == 1
    colours = random.integers(0, 2000, (8, 8, 3)).astype(np.uint16)
    (tmp_path / "colours.png").write_bytes(tf.io.encode_png(colours).numpy())
    with pytest.raises(DataError, match=r"colours.png: 16 bits a pixel"):
        read_image(tmp_path / "colours.png")


def test_volumes_among_images_are_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 99)
    (tmp_path / "b.nii.gz").write_bytes(b"\x1f\x8b" + b"\0" * 99)
    for name in ("a.dcm", "b.nii.gz"):
        with pytest.raises(DataError, match=f"{name}: a medical volume.*kerasvision.medical.read_volume"):
            read_image(tmp_path / name)
