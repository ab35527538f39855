"""Drawings: readable at any size, right about right and wrong, and never over the image itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.draw import SMALLEST_SIDE, draw, font, shorten

RANKED = [("cat", 0.9), ("dog", 0.07), ("bird", 0.03)]


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (1, 1), (240, 320), (640, 480), (2000, 40), (40, 2000)])
def test_every_size_gives_a_readable_panel(size):
    pixels = np.full((*size, 3), 90, np.uint8)
    drawn = draw(pixels, ranked=RANKED)
    assert drawn.mode == "RGB"
    assert max(drawn.size) >= SMALLEST_SIDE
    assert drawn.width >= SMALLEST_SIDE
    factor = max(1, -(-SMALLEST_SIDE // max(size)))
    panel = drawn.height - size[0] * factor
    assert panel > 3 * 14  # three rows of at least 14 pixels


def test_small_images_are_enlarged_by_whole_pixels_and_large_ones_stay():
    digit = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    drawn = np.asarray(draw(digit, ranked=RANKED))
    assert (drawn[:320, :320, 0] == digit.repeat(40, axis=0).repeat(40, axis=1)).all()
    photo = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    assert (np.asarray(draw(photo, ranked=RANKED))[:400, :500] == photo).all()


def test_bars_are_as_long_as_the_scores_and_say_what_is_right():
    def colors(truth):
        drawn = np.asarray(draw(np.zeros((320, 320), np.uint8), ranked=[("a", 1.0), ("b", 0.5)], truth=truth))
        panel = drawn[322:].reshape(-1, 3).astype(int)
        count = lambda rgb: int((np.abs(panel - rgb).sum(axis=1) < 6).sum())  # noqa: E731
        return {"green": count((21, 128, 61)), "red": count((185, 28, 28)), "blue": count((29, 78, 216))}

    right, wrong, unknown = colors(["a"]), colors(["b"]), colors(None)
    assert right["green"] > 2000 and right["red"] == right["blue"] == 0
    assert wrong["red"] > 1.5 * wrong["green"] > 1000
    assert unknown["blue"] > 3000 and unknown["red"] == unknown["green"] == 0


def test_a_missed_label_gets_a_line_of_its_own():
    image = np.zeros((320, 320), np.uint8)
    plain, missed = draw(image, ranked=RANKED, truth=["cat"]), draw(image, ranked=RANKED, truth=["dog"])
    assert missed.height > plain.height


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_pixels_of_any_number_type(dtype):
    assert draw(np.full((4, 4, 1), 200, dtype)).getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pil_images_of_any_mode(mode):
    assert draw(Image.new(mode, (10, 10)), ranked=RANKED).mode == "RGB"


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4, 3), (4, 4, 2), (0, 4, 3)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="Expected an image as"):
        draw(np.zeros(shape, np.uint8))


@given(text=st.text(max_size=60), room=st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_shortened_text_fits(text, room):
    of = font(14)
    short = shorten(text, of, room)
    assert of.getlength(short) <= room
    plain = " ".join(text.split())
    assert short == plain or short == "" or plain.startswith(short.removesuffix("…").rstrip())
