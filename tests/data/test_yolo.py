"""YOLO sets: boxes, polygons and keypoints as shares of the image, in every layout data.yaml can describe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data import load_data
from kerasvision.data.yolo import load_yolo
from kerasvision.errors import DataError
from kerasvision.masks import decode_masks


@pytest.fixture
def yolo(tmp_path):
    """Factory: images of 40 x 20 pixels and label files from {"train/a": text or None}, and a data.yaml."""

    def write(labels, description="train: images/train\nval: images/val\nnames: [cat, dog]\n"):
        for name, text in labels.items():
            image = tmp_path / "images" / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(image)
            if text is not None:
                file = tmp_path / "labels" / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text if isinstance(text, bytes) else text.encode())
        if description is not None:
            (tmp_path / "data.yaml").write_text(description)
        return tmp_path

    return write


BOXES = "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.1 0.2 0.2\n"
BOTH = {"train/a": BOXES, "train/b": None, "val/c": ""}


def check_boxes(data):
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 2, "validation": 1}
    first, second = data.splits["train"]
    np.testing.assert_allclose(first["boxes"], [[15, 5, 25, 15], [0, 0, 8, 4]], atol=1e-5)
    np.testing.assert_array_equal(first["classes"], [1, 0])
    np.testing.assert_array_equal(first["crowd"], [False, False])
    assert [first[key].dtype for key in ("boxes", "classes", "crowd")] == [np.float32, np.int32, bool]
    assert second["boxes"].shape == (0, 4) and "masks" not in first and "keypoints" not in first


@pytest.mark.parametrize(
    "description",
    [
        "train: images/train\nval: images/val\nnames: [cat, dog]\n",
        "path: .\ntrain: images/train\nval: images/val\ntest:\nnames:\n  1: dog\n  0: cat\nnc: 2\n",
        "path: /long/gone/datasets/x\ntrain: images/train\nval: [images/val]\nnames: {0: cat, 1: dog}\n",
        "path: ../datasets/x\ntrain: images/train\nvalid: images/val\nnames: ['cat', 'dog']\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n",
        "train: train.txt\nval: images/val\nnames: [cat, dog]\n",
    ],
)
def test_descriptions(yolo, description):
    root = yolo(BOTH, description)
    (root / "train.txt").write_text("./images/train/a.png\n\nimages/train/b.png\n")
    check_boxes(load_data(root))
    check_boxes(load_data(root / "data.yaml"))
    assert load_data(root).labels == ("cat", "dog")


def test_folders_without_a_description(yolo):
    root = yolo(BOTH, None)
    (root / "classes.txt").write_text("cat\ndog\n")
    check_boxes(load_data(root))


def test_splits_above_the_folders(tmp_path):
    for split, name in (("train", "a"), ("train", "b"), ("valid", "c")):
        (tmp_path / split / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / split / "labels").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / split / "images" / f"{name}.png")
        (tmp_path / split / "labels" / f"{name}.txt").write_text(BOXES if name == "a" else "")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    check_boxes(load_data(tmp_path))
    # The description Roboflow writes.
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")
    check_boxes(load_data(tmp_path))


def test_one_folder_of_images_and_labels(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in "abcd":
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels" / f"{name}.txt").write_text(BOXES)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    data = load_data(tmp_path, validation_fraction=0.25)
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 3, "validation": 1}


def test_boxes_are_shares_of_the_upright_image(yolo):
    root = yolo(BOTH)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(root / "images/train/a.png", exif=exif)
    boxes = load_data(root).splits["train"][0]["boxes"]
    np.testing.assert_allclose(boxes, [[7.5, 10, 12.5, 30], [0, 0, 4, 8]], atol=1e-5)


def test_polygons(yolo):
    root = yolo({"train/a": "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n", "val/b": None})
    data = load_data(root)
    example = data.splits["train"][0]
    np.testing.assert_allclose(example["boxes"], [[10, 5, 30, 15]], atol=1e-5)
    mask = decode_masks(example["masks"], (20, 40))[0]
    np.testing.assert_array_equal(mask, np.pad(np.ones((10, 20)), ((5, 5), (10, 10))))
    assert list(data.splits["validation"][0]["masks"]) == []


@pytest.mark.parametrize(("shape", "line"), [(3, "0.25 0.5 2 0.5 0.75 0"), (2, "0.25 0.5 0 0")])
def test_keypoints(yolo, shape, line):
    root = yolo(
        {"train/a": f"1 0.5 0.5 0.25 0.5 {line}\n", "val/b": None},
        f"train: images/train\nval: images/val\nnames: [cat, dog]\nkpt_shape: [2, {shape}]\n",
    )
    data = load_data(root)
    points = data.splits["train"][0]["keypoints"]
    np.testing.assert_allclose(points[0, 0], [10, 10, 2])
    assert points.shape == (1, 2, 3) and points[0, 1, 2] == 0
    assert data.splits["validation"][0]["keypoints"].shape == (0, 2, 3) and data.keypoint_names == ("0", "1")


BAD = {
    "class beyond": ("2 0.5 0.5 0.2 0.2", "the class is 2; expected a whole number in 0..1"),
    "negative class": ("-1 0.5 0.5 0.2 0.2", "the class is -1"),
    "half a class": ("0.5 0.5 0.5 0.2 0.2", "the class is 0.5"),
    "class nan": ("nan 0.5 0.5 0.2 0.2", "the class is nan"),
    "pixels": ("0 100 50 20 20", "a box beyond the image; expected shares"),
    "nan": ("0 0.5 nan 0.2 0.2", "a box beyond the image"),
    "infinite": ("0 0.5 0.5 inf 0.2", "a box beyond the image"),
    "no width": ("0 0.5 0.5 0 0.2", "a box 0 wide and 0.2 high"),
    "negative height": ("0 0.5 0.5 0.1 -0.2", "a box 0.1 wide and -0.2 high"),
    "words": ("cat 0.5 0.5 0.1 0.2", "is not a line of numbers"),
    "other digits": ("0 \u0660.\u0665 0.5 0.1 0.2", "is not a line of numbers"),
    "four numbers": ("0 0.5 0.5 0.1", "4 numbers; expected class, cx, cy, width, height or class and x, y"),
    "two points": ("0 0.5 0.5 0.1 0.1 0.2", "6 numbers; expected class"),
    "odd polygon": ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.1", "8 numbers; expected class"),
    "polygon in pixels": ("0 1 1 90 1 90 90", "a polygon beyond the image"),
    "polygon nan": ("0 0.1 nan 0.9 0.1 0.9 0.9", "a polygon beyond the image"),
    "flat polygon": ("0 0.1 0.5 0.5 0.5 0.9 0.5", "a polygon without width or height"),
    "binary": (b"\x00\xff\xfe", "is not a line of numbers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_lines_stop_or_take_their_image_out(yolo, kind):
    line, reason = BAD[kind]
    content = line if isinstance(line, bytes) else line.encode()
    root = yolo({"train/a": b"\n" + content + b"\n", "train/b": BOXES, "val/c": None})
    with pytest.raises(DataError) as error:
        load_data(root)
    assert reason in str(error.value) and f"(named in {root}/labels/train/a.txt:2)" in str(error.value)
    data = load_data(root, on_bad_files="skip")
    assert [example["image"][-5:] for example in data.splits["train"]] == ["b.png"]
    assert data.skipped[0].origin == f"{root}/labels/train/a.txt:2"


def test_boxes_among_polygons(yolo):
    root = yolo({"train/a": BOXES, "train/b": "1 0.25 0.25 0.75 0.25 0.75 0.75\n", "val/c": None})
    with pytest.raises(DataError, match=r"a box among polygons.*labels/train/a\.txt:1"):
        load_data(root)
    assert len(load_data(root, on_bad_files="skip").splits["train"]) == 1


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ("0.5 0.5 3 0.5 0.5 1", "a visibility other than"),
        ("9 0.5 1 0.5 0.5 1", "a keypoint beyond"),
        ("0.5", "6 numbers"),
    ],
)
def test_bad_keypoints(yolo, points, reason):
    root = yolo({"train/a": f"0 0.5 0.5 0.1 0.1 {points}"}, "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\n")
    with pytest.raises(DataError, match=reason):
        load_data(root)


DESCRIPTIONS = {
    "no names": ("train: images/train\n", "data.yaml:1: expected names"),
    "no splits": ("names: [a]\n", "data.yaml:1: expected train, val or test"),
    "names as text": ("train: images/train\nnames: cat\n", "data.yaml:2: expected names"),
    "gaps": ("train: images/train\nnames: {0: a, 2: b}\n", "data.yaml:2: names must be numbered"),
    "count": ("nc: 3\nnames: [a]\ntrain: images/train\n", "data.yaml:2: 1 names, but nc is another number"),
    "broken": ("names: [a\ntrain: x", "data.yaml:2: broken YAML"),
    "list": ("- a\n", "data.yaml:1: expected keys"),
    "python": ("names: !!python/object/apply:os.system [ls]\ntrain: 5", "data.yaml:2: there is no"),
    "outside": (
        "names: [cat, dog]\ntrain: images/../../../x\n",
        "data.yaml:2: 'images/../../../x' leads out of the data folder",
    ),
    "missing": ("names: [cat, dog]\ntrain: nowhere\n", "data.yaml:2: there is no"),
    "table": ("names: [cat, dog]\ntrain: {a: b}\n", "data.yaml:2: expected a folder"),
    "keypoints": ("names: [cat, dog]\ntrain: images/train\nkpt_shape: [17]\n", "data.yaml:3: expected kpt_shape"),
    "path": ("names: [cat, dog]\npath: [a]\ntrain: images/train\n", "data.yaml:2: expected path as text"),
    "circle": ("names: &a [*a]\ntrain: images/train\n", "data.yaml:1: broken YAML"),
    "bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True))
        + "names: *i\ntrain: images/train\n",
        "data.yaml:10: expected names",
    ),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_descriptions_that_cannot_be_used(yolo, kind):
    text, reason = DESCRIPTIONS[kind]
    root = yolo(BOTH, text)
    with pytest.raises(DataError) as error:
        load_data(root / "data.yaml")
    assert reason in str(error.value)


def test_lists_that_leave_the_folder(yolo):
    root = yolo(BOTH, "train: train.txt\nnames: [cat, dog]\n")
    (root / "train.txt").write_text("images/train/a.png\n../../x.png\n/etc/x.png\nimages/train/nowhere.png\n")
    with pytest.raises(DataError) as error:
        load_data(root)
    for line in (2, 3):
        assert f"train.txt:{line}" in str(error.value)
    data = load_data(root, on_bad_files="skip", validation_fraction=0)
    assert len(data.splits["train"]) == 1
    assert any(
        "nowhere.png: file not found (named in" in str(bad) and "train.txt:4" in str(bad) for bad in data.skipped
    )


def test_image_in_two_splits(yolo):
    root = yolo(BOTH, "train: images/train\nval: [images/val, images/train]\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=r"a\.png: is listed for the train split, too"):
        load_data(root)


def test_set_without_any_label(yolo):
    with pytest.raises(DataError, match="none of 2 images has a label file"):
        load_data(yolo({"train/a": None, "val/b": None}))


def test_words_that_yaml_takes_for_something_else(yolo):
    root = yolo(BOTH, "train: images/train\nval: images/val\nnames: [no, 2024-01-01]\n")
    assert load_data(root).labels == ("no", "2024-01-01")


@given(
    st.lists(
        st.lists(st.one_of(st.integers(-1, 3), st.floats(-1, 2, width=16), st.text(max_size=3)), max_size=9), max_size=3
    )
)
@settings(max_examples=150, deadline=None)
def test_any_line_is_read_or_listed(tmp_path_factory, lines):
    root = tmp_path_factory.mktemp("yolo")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    (root / "images/a.png").touch()
    (root / "labels/a.txt").write_bytes("\n".join(" ".join(map(str, line)) for line in lines).encode())
    (root / "classes.txt").write_text("cat\ndog\n")
    listing = load_yolo(root)
    assert len(listing.splits["train"]) + len(listing.problems) == 1
    for problem in listing.problems:
        assert f"{root}/labels/a.txt:" in problem.origin
    for item in listing.splits["train"]:
        assert np.isfinite(item.objects.boxes).all() and set(item.objects.classes) <= {0, 1}


@given(st.text("names: [a]trin{}&*!\n-0'\"|>#%@", max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_description_is_read_or_refused(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("yolo")
    (root / "images").mkdir()
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml|label file|No images"):
        load_data(root / "data.yaml")
