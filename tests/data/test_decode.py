"""Every kind of image file comes out right, and the fast decoders agree with Pillow in every bit."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kerasvision.data.decode import as_pixels, fit_image, load_image, read_image
from kerasvision.data.inspect import Decoder, inspect_file
from kerasvision.errors import DataError
from kerasvision.preprocessing import Preprocessing


def smooth(height=37, width=53, channels=3, seed=0):
    """A photograph-like image: smooth, with an edge, different in every corner."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, channels), np.uint8).squeeze())
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    pixels[: height // 3, : width // 4] = 250
    return pixels


def save(folder, name, image, **options):
    path = folder / name
    image.save(path, **options)
    return str(path)


def pillow_rgb(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


FAST = {
    "rgb.jpg": (Decoder.JPEG, {}),
    "progressive.jpg": (Decoder.JPEG, {"progressive": True, "quality": 80}),
    "subsampling_444.jpg": (Decoder.JPEG, {"subsampling": 0}),
    "subsampling_422.jpg": (Decoder.JPEG, {"subsampling": 1}),
    "restart.jpg": (Decoder.JPEG, {"restart_marker_blocks": 3}),
    "poor.jpg": (Decoder.JPEG, {"quality": 5}),
    "rgb.png": (Decoder.PNG, {}),
    "rgb.bmp": (Decoder.PILLOW, {}),
    "rgb.webp": (Decoder.PILLOW, {"lossless": True}),
    "rgb.tif": (Decoder.PILLOW, {}),
    "rgb.ppm": (Decoder.PILLOW, {}),
}


@pytest.mark.parametrize("name", FAST)
def test_rgb_is_what_pillow_gives(tmp_path, name):
    decoder, options = FAST[name]
    path = save(tmp_path, name, Image.fromarray(smooth()), **options)
    assert inspect_file(path).decoder == decoder
    np.testing.assert_array_equal(read_image(path), pillow_rgb(path))


@pytest.mark.parametrize("name", ["grey.jpg", "grey.png", "grey.bmp", "grey.webp"])
def test_grey_has_three_equal_channels(tmp_path, name):
    path = save(tmp_path, name, Image.fromarray(smooth(channels=1)))
    pixels = read_image(path)
    np.testing.assert_array_equal(pixels, pillow_rgb(path))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 9), subsampling=st.sampled_from([0, 1, 2])
)
@settings(max_examples=40, deadline=None)
def test_jpeg_of_any_size_matches_pillow(tmp_path_factory, height, width, seed, subsampling):
    path = save(
        tmp_path_factory.mktemp("jpeg"),
        "a.jpg",
        Image.fromarray(smooth(height, width, 3, seed)),
        subsampling=subsampling,
    )
    np.testing.assert_array_equal(read_image(path), pillow_rgb(path))


def test_photographs_match_pillow_in_every_bit(real_data):
    files = [
        *sorted((real_data / "imagenet_sample").iterdir())[::10],
        *sorted((real_data / "bccd/JPEGImages").iterdir())[::50],
    ]
    assert len(files) > 50
    for file in files:
        assert inspect_file(str(file)).decoder == Decoder.JPEG
        np.testing.assert_array_equal(read_image(file), pillow_rgb(file), err_msg=str(file))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = save(tmp_path, name, Image.fromarray(smooth()), exif=exif, **options)
    expected = pillow_rgb(path)
    assert expected.shape == ((37, 53, 3) if orientation < 5 else (53, 37, 3))
    np.testing.assert_array_equal(read_image(path), expected)


def test_16_bit_png_with_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    path = save(tmp_path, "a.png", Image.fromarray(grey), exif=exif)
    expected = np.rot90(np.rint(grey / 257), -1)
    np.testing.assert_array_equal(read_image(path)[..., 0], expected)


def test_nonsense_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    path = save(tmp_path, "a.png", Image.fromarray(smooth()), exif=exif)
    np.testing.assert_array_equal(read_image(path), smooth())


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    values = np.linspace(0, 65535, 37 * 53).reshape(37, 53).astype(np.uint16)
    path = save(tmp_path, name, Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path)[..., 1], np.rint(values / 257))


def test_16_bit_colour_png_is_rounded_and_laid_over_white(tmp_path):
    rng = np.random.default_rng(0)
    color = rng.integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    alpha = rng.integers(0, 65536, (9, 7, 1)).astype(np.uint16)
    rgba = np.concatenate([color, alpha], -1)
    opaque, transparent = tmp_path / "opaque.png", tmp_path / "transparent.png"
    opaque.write_bytes(tf.io.encode_png(color).numpy())
    transparent.write_bytes(tf.io.encode_png(rgba).numpy())
    assert inspect_file(str(opaque)).decoder == Decoder.PNG16
    np.testing.assert_array_equal(read_image(opaque), np.rint(color / 257))
    share = alpha / 65535
    expected = (color * share + 65535 * (1 - share)) / 257
    np.testing.assert_allclose(read_image(transparent), expected, atol=0.51)


def test_transparent_pixels_are_laid_over_white(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, 0, 3], rgba[0, 1, 3], rgba[1, 0, 3] = 255, 0, 128
    for name in ("a.png", "a.webp", "a.tif"):
        options = {"lossless": True, "exact": True} if name == "a.webp" else {}
        pixels = read_image(save(tmp_path, name, Image.fromarray(rgba), **options))
        np.testing.assert_array_equal(pixels[0, 0], [200, 0, 0])
        np.testing.assert_array_equal(pixels[0, 1], [255, 255, 255])
        np.testing.assert_allclose(pixels[1, 0], [227, 127, 127], atol=1)
    np.testing.assert_allclose(as_pixels(rgba), pixels, atol=1)


def test_grey_with_alpha_and_transparent_colours(tmp_path):
    grey_alpha = Image.merge("LA", [Image.new("L", (3, 2), 10), Image.new("L", (3, 2), 0)])
    assert (read_image(save(tmp_path, "la.png", grey_alpha)) == 255).all()
    keyed = Image.new("RGB", (3, 2), (1, 2, 3))
    path = save(tmp_path, "keyed.png", keyed, transparency=(1, 2, 3))
    assert inspect_file(path).decoder == Decoder.PILLOW
    assert (read_image(path) == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
def test_palette_becomes_colour(tmp_path, name):
    image = Image.fromarray(smooth()).quantize(32)
    path = save(tmp_path, name, image)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (4, 3), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    pixels = read_image(save(tmp_path, "a.png", image, transparency=0))
    np.testing.assert_array_equal(pixels[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(pixels[1, 1], [0, 255, 0])


def test_one_bit_image(tmp_path):
    bits = np.eye(9, dtype=bool)
    pixels = read_image(save(tmp_path, "a.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(pixels[..., 0], np.where(bits, 255, 0))


def test_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    path = save(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])


def test_animated_png_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    path = save(tmp_path, "a.png", frames[0], save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])


def test_cmyk_jpeg_in_adobes_inverted_form(tmp_path):
    # Pillow writes CMYK JPEGs the way Photoshop does: with an Adobe marker and inverted values.
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = save(tmp_path, "a.jpg", red, quality=100)
    assert b"Adobe" in Path(path).read_bytes()[:200]
    assert inspect_file(path).decoder == Decoder.PILLOW
    np.testing.assert_allclose(read_image(path)[8, 8], [255, 0, 0], atol=2)
    tiff = save(tmp_path, "a.tif", red)
    np.testing.assert_allclose(read_image(tiff)[8, 8], [255, 0, 0], atol=2)


def test_interlaced_png(tmp_path):
    # A 2x2 grey image, Adam7: the passes hold (0, 0), then (0, 1), then the second row.
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    rows = bytes([0, 10, 0, 20, 0, 30, 40])
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(path)[..., 0], [[10, 20], [30, 40]])


def test_content_counts_not_the_suffix(tmp_path):
    path = tmp_path / "really_a.jpg"
    Image.fromarray(smooth()).save(path, format="PNG")
    assert inspect_file(str(path)).misnamed
    np.testing.assert_array_equal(read_image(path), smooth())


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@given(share=st.floats(0, 1), damage=st.one_of(st.none(), st.integers(0, 255)))
@settings(max_examples=60, deadline=None)
def test_what_passes_inspection_can_be_decoded(tmp_path_factory, name, share, damage):
    """Files cut short or with a byte changed: either refused, or decoded without an error."""
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, {"a.jpg": "JPEG", "a.png": "PNG"}[name])
    content = bytearray(buffer.getvalue())
    position = int(share * (len(content) - 1))
    if damage is None:
        content = content[:position]
    else:
        content[position] = damage
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    info = inspect_file(str(path))
    if damage is None and share < 0.9:
        assert not hasattr(info, "decoder")
    if hasattr(info, "decoder"):
        assert read_image(path).shape[-1] == 3
    else:
        with pytest.raises(DataError, match=name):
            read_image(path)


def test_resizing_identity_is_exact():
    pixels = smooth(20, 30)
    for fit in ("stretch", "crop", "letterbox"):
        np.testing.assert_array_equal(load_image(pixels, (20, 30), 3, Preprocessing(fit=fit)), pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_matches_pillow(interpolation):
    pixels = smooth(120, 90)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    for size in [(40, 30), (33, 71), (240, 200)]:
        ours = load_image(pixels, size, 3, Preprocessing(interpolation=interpolation))
        theirs = np.asarray(Image.fromarray(pixels).resize(size[::-1], method), np.float32)
        # Bicubic overshoots at the edge; Pillow rounds between its two passes.
        assert np.abs(ours - theirs).mean() < 0.6
        assert np.abs(ours - theirs).max() <= (3 if interpolation == "bilinear" else 12)


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    shrunk = load_image(stripes, (8, 8), 1)
    assert np.abs(shrunk[:, 1:-1] - 127.5).max() < 2


@given(height=st.integers(2, 70), width=st.integers(2, 70), fraction=st.sampled_from([1.0, 0.875, 0.5]))
@settings(max_examples=30, deadline=None)
def test_crop_equals_resize_then_cut(height, width, fraction):
    pixels = smooth(height, width)
    size = (16, 16)
    ratio = max(16 / height, 16 / width) / fraction
    resized = (max(round(height * ratio), 16), max(round(width * ratio), 16))
    whole = load_image(pixels, resized)
    top, left = -((16 - resized[0]) // 2), -((16 - resized[1]) // 2)
    cropped = load_image(pixels, size, 3, Preprocessing(fit="crop", crop_fraction=fraction))
    np.testing.assert_allclose(cropped, whole[top : top + 16, left : left + 16], atol=1)


def test_letterbox_keeps_the_aspect_ratio_on_grey_114():
    pixels = np.full((10, 20, 3), 200, np.uint8)
    fitted = load_image(pixels, (16, 16), 3, Preprocessing(fit="letterbox"))
    np.testing.assert_array_equal(fitted[4:12], 200)
    np.testing.assert_array_equal(fitted[:4], 114)
    np.testing.assert_array_equal(fitted[12:], 114)


def test_bicubic_overshoot_is_clipped():
    edge = np.zeros((8, 8), np.uint8)
    edge[:, 4:] = 255
    fitted = load_image(edge, (33, 33), 1, Preprocessing(interpolation="bicubic"))
    assert fitted.min() == 0 and fitted.max() == 255


def test_grey_conversion_is_pillows():
    pixels = smooth(32, 32)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    np.testing.assert_array_equal(load_image(pixels, (32, 32), 1), expected)


def test_grey_and_back_is_exact():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = tf.constant(np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(fit_image(rgb, (16, 16), 1, Preprocessing())[..., 0], grey)


def test_arrays_of_other_kinds():
    grey = smooth(8, 8, 1)
    np.testing.assert_array_equal(as_pixels(grey.astype(np.float32) - 0.2 * (grey > 0))[..., 0], grey)
    with pytest.raises(DataError, match=r"0\.\.255.*scale them"):
        as_pixels(np.full((4, 4, 3), -0.5))
    with pytest.raises(DataError, match=r"0\.\.255"):
        as_pixels(np.full((4, 4), np.nan))
    with pytest.raises(DataError, match=r"\[4, 4, 2\]"):
        as_pixels(np.zeros((4, 4, 2), np.uint8))
