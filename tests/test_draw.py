"""Drawings: readable at any size, right about right and wrong, and never over the image itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.draw import SMALLEST_SIDE, draw, font
from kerasvision.masks import PackedMasks
from kerasvision.overlay import Objects, colour, legend_of, readable_on, shorten

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


class TestObjects:
    LABELS = ("cat", "dog")

    def image(self, side=400):
        return np.full((side, side, 3), 90, np.uint8)

    def test_a_box_lies_on_its_own_pixels_and_nothing_else_changes(self):
        drawn = np.asarray(draw(self.image(), boxes=np.array([[100, 120, 180, 200]]), labels=("cat",)))[:400]
        rows, columns = np.nonzero((drawn != 90).any(axis=-1))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 120, 180, 200)
        assert (drawn[130:190, 110:170] == 90).all()

    def test_everything_scales_with_the_picture(self):
        large = draw(self.image(1600), boxes=np.array([[400, 400, 800, 1200]]), labels=("cat",), side=400)
        assert large.width == 400
        changed = (np.asarray(large)[:400] != 90).any(axis=-1)
        rows, columns = np.nonzero(changed)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 100, 200, 300)
        small = np.asarray(draw(self.image(40), boxes=np.array([[10, 10, 20, 20]])))
        rows, columns = np.nonzero((small != 90).any(axis=-1))
        assert (columns.min(), columns.max() + 1) == (80, 160)  # Enlarged eight times.

    def test_masks_colour_their_pixels_and_the_small_one_lies_on_top(self):
        masks = np.zeros((2, 400, 400), np.uint8)
        masks[0, 150:170, 150:170] = 1
        masks[1, 100:300, 100:300] = 1
        packed, plain = (
            np.asarray(draw(self.image(), masks=m, classes=np.array([0, 1]), labels=self.LABELS))
            for m in (PackedMasks.pack(masks), masks)
        )
        assert (packed == plain).all()
        for (y, x), index in (((160, 160), 0), ((250, 250), 1)):
            wanted = 0.55 * 90 + 0.45 * np.array(colour(index))
            assert np.abs(packed[y, x] - wanted).max() <= 1
        assert (packed[50, 50] == 90).all()

    def test_class_maps_are_coloured_by_class_and_void_is_hatched(self):
        classes = np.zeros((400, 400), np.uint8)
        classes[:, 200:] = 1
        classes[300:] = 255
        drawn = np.asarray(draw(self.image(), segmentation=classes, labels=self.LABELS))
        for x, index in ((100, 0), (300, 1)):
            assert np.abs(drawn[100, x] - (0.55 * 90 + 0.45 * np.array(colour(index)))).max() <= 1
        void = drawn[310:390, 10:390].reshape(-1, 3)
        assert 0.4 < (void == 90).all(axis=1).mean() < 0.6

    def test_keypoints_are_full_hollow_or_absent(self):
        points = np.array([[[100, 100, 2], [200, 200, 1], [300, 300, 0]]], float)
        drawn = np.asarray(draw(self.image(), keypoints=points, edges=[(0, 2)]))[:400]
        assert (drawn[100, 100] == colour(0)).all()  # visible: filled
        assert (drawn[200, 200] == 90).all() and (drawn[190:210, 190:210] != 90).any()  # hidden: a ring
        assert (drawn[250:, 250:] == 90).all()  # absent, and so is the line to it

    @pytest.mark.parametrize(
        "boxes", [np.zeros((0, 4)), np.array([[np.nan, 0, 5, 5], [50, 50, 20, 20], [0, 0, 1e9, 1e9]])]
    )
    def test_odd_boxes_do_not_stop_the_drawing(self, boxes):
        count = len(boxes)
        drawn = draw(
            self.image(), boxes=boxes, classes=np.ones(count, int), crowd=np.ones(count, bool), labels=self.LABELS
        )
        assert drawn.width == 400

    def test_the_legend_counts_the_classes(self):
        objects = Objects(self.LABELS, boxes=np.zeros((3, 4)), classes=np.array([1, 1, 0]))
        assert legend_of(objects) == [("dog 2", colour(1)), ("cat 1", colour(0))]
        assert legend_of(Objects(("cat",), boxes=np.zeros((3, 4)))) == [("cat 3", None)]
        half = np.array([[0, 0], [1, 255]], np.uint8)
        shares = [name for name, _ in legend_of(Objects(self.LABELS, segmentation=half))]
        assert shares == ["cat 50 %", "dog 25 %", "void 25 %"]
        assert legend_of(Objects()) == []

    def test_a_legend_of_many_long_names_stays_small(self):
        labels = [f"a class with a rather long name, number {index}" for index in range(60)]
        drawn = draw(self.image(), boxes=np.tile([10, 10, 60, 60], (60, 1)), classes=np.arange(60), labels=labels)
        assert 400 < drawn.height < 600

    def test_parts_must_fit_each_other(self):
        with pytest.raises(ValueError, match=r"as many of each part as there are objects.*'boxes': 2, 'classes': 3"):
            draw(self.image(), boxes=np.zeros((2, 4)), classes=np.zeros(3, int))
        with pytest.raises(ValueError, match=r"boxes as \[N, 4\]"):
            draw(self.image(), boxes=np.zeros(4))

    @pytest.mark.parametrize(("count", "named", "scored"), [(20, True, True), (21, False, True), (61, False, False)])
    def test_a_crowd_has_scores_alone_and_a_large_one_nothing(self, monkeypatch, count, named, scored):
        texts = []
        monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda pen, where, text, *_, **__: texts.append(text))
        low = np.stack([np.arange(count) % 8 * 49, np.arange(count) // 8 * 49], axis=1)
        boxes = np.concatenate([low, low + 40], axis=1)
        draw(self.image(), boxes=boxes, classes=np.zeros(count, int), scores=np.full(count, 0.87), labels=self.LABELS)
        tags = [text for text in texts if "87" in text]
        assert len(tags) == (count if scored else 0)
        assert all(text == ("cat 87 %" if named else "87 %") for text in tags)

    def test_names_do_not_cover_the_boxes_where_there_is_room(self):
        boxes = np.array([[20, 60, 120, 160], [20, 160, 120, 260], [200, 60, 300, 160]])
        drawn = np.asarray(draw(self.image(), boxes=boxes, classes=np.array([0, 1, 0]), labels=self.LABELS))
        for left, top, right, bottom in boxes:
            assert (drawn[top + 3 : bottom - 3, left + 3 : right - 3] == 90).all()
        assert (drawn[:400] != 90).any(axis=-1).sum() > 3 * 4 * 100 * 2

    def test_colours_differ(self):
        assert len({colour(index) for index in range(200)}) == 200
        assert readable_on((255, 255, 0)) == (0, 0, 0) and readable_on((0, 0, 120)) == (255, 255, 255)
