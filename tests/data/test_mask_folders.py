"""Image and mask folders in the layouts people use, and masks whose values mean something else than they seem."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data import load_data
from kerasvision.data.mask_files import MaskCoding, MaskFile, read_segmentation
from kerasvision.errors import DataError

MASK = np.array([[0, 1], [2, 255]], np.uint8).repeat(5, 0).repeat(6, 1)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


def save_image(path, size=(10, 12), **options):
    save(path, np.zeros((*size, 3), np.uint8), **options)


def write_pairs(root, images, masks, names=("a", "b"), suffix="", mask=MASK):
    for name in names:
        save_image(root / images / f"{name}.jpg")
        save(root / masks / f"{name}{suffix}.png", mask)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (("images/train", "masks/train"), ("images/val", "masks/val")),
        (("train/images", "train/masks"), ("valid/images", "valid/masks")),
        (("train/image", "train/label"), ("test/image", "test/label")),
        (("train", "trainannot"), ("val", "valannot")),
        (("train", "train_labels"), ("val", "val_labels")),
        (("Images/Train", "Annotations/Train"), ("Images/Val", "Annotations/Val")),
        (("JPEGImages", "SegmentationClass"), None),
        (("images", "labels"), None),
    ],
)
def test_layouts(tmp_path, train, validation):
    write_pairs(tmp_path, *train)
    if validation:
        write_pairs(tmp_path, *validation, names="c")
    data = load_data(tmp_path, "masks", validation_fraction=0)
    assert data.splits["train"][1]["image"] == str(tmp_path / train[0] / "b.jpg")
    mask = data.splits["train"][1]["segmentation"]
    assert mask.path == str(tmp_path / train[1] / "b.png")
    np.testing.assert_array_equal(read_segmentation(mask), MASK)
    assert [len(examples) for examples in data.splits.values()] == ([2, 1] if validation else [2])
    assert data.labels == ("0", "1", "2")
    if "SegmentationClass" not in train:
        assert load_data(tmp_path, validation_fraction=0).splits == data.splits


@pytest.mark.parametrize("suffix", ["", "_mask", "_L", "_label"])
def test_suffixes_of_names(tmp_path, suffix):
    write_pairs(tmp_path, "images", "masks", ("a", "ab", "deep/a"), suffix)
    data = load_data(tmp_path, validation_fraction=0)
    assert [example["segmentation"].path.removeprefix(str(tmp_path)) for example in data.splits["train"]] == [
        f"/masks/{name}{suffix}.png" for name in ("a", "ab", "deep/a")
    ]


@pytest.mark.parametrize("file", ["labels.txt", "classes.txt", "codes.txt"])
def test_names_of_classes(tmp_path, file):
    write_pairs(tmp_path, "images", "masks")
    (tmp_path / file).write_text("sky\nroad\n\ntree\ncar\n")
    assert load_data(tmp_path, validation_fraction=0).labels == ("sky", "road", "tree", "car")
    (tmp_path / file).write_text("sky\nroad\n")
    with pytest.raises(DataError, match=r"masks/a\.png: the mask holds 2; expected 0\.\.1, or 255 for void"):
        load_data(tmp_path, validation_fraction=0)
    (tmp_path / file).write_bytes(b"sky\n\xff")
    with pytest.raises(DataError, match=rf"{file}:2: not UTF-8"):
        load_data(tmp_path)


COLORS = {
    "class_dict.csv": "name,r,g,b\nsky,0,0,0\nroad,10,20,30\ntree,255,0,0\nVoid,9,9,9\n",
    "label_colors.txt": "0 0 0\tsky\n10 20 30 road\n255 0 0   tree\n9 9 9 Void\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:10,20,30::\ntree:255,0,0::\nVoid:9,9,9::\n",
}


@pytest.mark.parametrize("file", COLORS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_in_colours(tmp_path, file, mode):
    (tmp_path / file).write_text(COLORS[file])
    colors = np.array([[0, 0, 0], [10, 20, 30], [255, 0, 0], [9, 9, 9]], np.uint8)
    pixels = colors[np.where(MASK == 255, 3, MASK)]
    for name in "ab":
        save_image(tmp_path / "images" / f"{name}.png")
        image = Image.fromarray(pixels)
        image = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / "masks" / f"{name}.png")
    data = load_data(tmp_path, validation_fraction=0)
    assert data.labels == ("sky", "road", "tree")
    np.testing.assert_array_equal(read_segmentation(data.splits["train"][0]["segmentation"]), MASK)


def test_colours_that_cannot_be_read(tmp_path):
    pixels = np.zeros((10, 12, 3), np.uint8)
    write_pairs(tmp_path, "images", "masks", mask=pixels + np.array([1, 2, 3], np.uint8))
    with pytest.raises(DataError, match=r"a\.png: the mask is in colours, and no file says .*class_dict\.csv"):
        load_data(tmp_path)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsky,1,2,3\nroad,0,0,0\n")
    pixels[3, 4] = 5, 6, 7
    save(tmp_path / "masks/a.png", pixels)
    with pytest.raises(DataError, match=r"1 pixels have colours .* the first \(5, 6, 7\) in row 3, column 4"):
        load_data(tmp_path, validation_fraction=0)
    assert len(load_data(tmp_path, validation_fraction=0, on_bad_files="skip").splits["train"]) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name,r,g,b\nsky,1,2\n", 2),
        ("name,r,g,b\nsky,1,2,300\n", 2),
        ("sky,1,2,3\nroad,1,2,3\n", 2),
        ("sky,1,2,3\nsky,1,2,4\n", 2),
        ("sky,a,b,c\n", 1),
        ('"sky,1,2,3\n', 1),
    ],
)
def test_lists_of_colours_that_cannot_be_read(tmp_path, text, line):
    write_pairs(tmp_path, "images", "masks")
    (tmp_path / "class_dict.csv").write_text(text)
    with pytest.raises(DataError, match=rf"class_dict\.csv:{line}: "):
        load_data(tmp_path)


def test_palette_files_are_read_as_indices(tmp_path):
    image = Image.fromarray(MASK, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_segmentation(str(tmp_path / "mask.png")), MASK)


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", MASK), ("RGB", MASK), ("I;16", MASK), ("1", (MASK > 0).astype(np.uint8))]
)
def test_other_kinds_of_pixels(tmp_path, mode, expected):
    if mode == "1":
        Image.fromarray(MASK > 0).save(tmp_path / "mask.png")
    elif mode == "I;16":
        Image.fromarray(MASK.astype(np.uint16)).save(tmp_path / "mask.png")
    else:
        Image.fromarray(MASK).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_segmentation(str(tmp_path / "mask.png")), expected)


def test_black_and_white_masks_have_two_classes(tmp_path):
    """255 is void elsewhere; where nothing but 0 and 255 occurs, it is the one class there is."""
    white = np.where(MASK == 1, 255, 0).astype(np.uint8)
    write_pairs(tmp_path, "images", "masks", mask=white)
    data = load_data(tmp_path, validation_fraction=0)
    assert data.labels == ("0", "1")
    np.testing.assert_array_equal(read_segmentation(data.splits["train"][0]["segmentation"]), MASK == 1)
    (tmp_path / "labels.txt").write_text("ground\nbuilding\n")
    assert load_data(tmp_path, validation_fraction=0).labels == ("ground", "building")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    mask = load_data(tmp_path, validation_fraction=0).splits["train"][0]["segmentation"]
    np.testing.assert_array_equal(read_segmentation(mask), white)


def spoil(root):
    """Bad masks, and what must be said of each."""
    save(root / "masks/other_size.png", MASK[:9])
    save(root / "masks/void.png", np.full((10, 12), 255, np.uint8))
    save(root / "masks/deep.png", (MASK.astype(np.uint16) + 1) * 200)
    save(root / "masks/jpeg.jpg", MASK)
    good = (root / "masks/good.png").read_bytes()
    (root / "masks/cut.png").write_bytes(good[: len(good) // 2])
    (root / "masks/empty.png").write_bytes(b"")
    return {
        "other_size": "the mask has 12 x 9 pixels, its image 12 x 10",
        "void": "every pixel of the mask is void",
        "deep": "the mask holds 51200",
        "jpeg": "not a mask. Expected a sound PNG",
        "cut": "mask",
        "empty": "not a mask",
        "alone": "has no mask",
    }


def test_bad_masks_are_named_or_skipped(tmp_path):
    write_pairs(tmp_path, "images", "masks", ["good"])
    reasons = spoil(tmp_path)
    for name in reasons:
        save_image(tmp_path / "images" / f"{name}.png")
    with pytest.raises(DataError, match=r"alone\.png: has no mask .*masks/alone\.png"):
        load_data(tmp_path)
    (tmp_path / "images/alone.png").unlink()
    with pytest.raises(DataError) as error:
        load_data(tmp_path)
    assert str(error.value).startswith("6 of 7 image files cannot be used")
    data = load_data(tmp_path, on_bad_files="skip", validation_fraction=0)
    assert [example["image"][-8:] for example in data.splits["train"]] == ["good.jpg"]
    for name in reasons.keys() - {"alone"}:
        found = next(bad for bad in data.skipped if f"masks/{name}." in bad.path)
        assert reasons[name] in found.reason, name


def test_image_on_its_side(tmp_path):
    write_pairs(tmp_path, "images", "masks")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(tmp_path / "images/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"masks/a\.png: the mask has 12 x 10 pixels, its image 10 x 12"):
        load_data(tmp_path)


def test_names_that_belong_to_two_files(tmp_path):
    write_pairs(tmp_path, "images", "masks")
    save_image(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"which belongs to which cannot be said of .*a\.jpg, .*a\.png"):
        load_data(tmp_path)


def test_folder_without_masks(tmp_path):
    with pytest.raises(DataError, match="expected images/ and masks/"):
        load_data(tmp_path, "masks")


def test_camvid(real_data, monkeypatch):
    data = load_data("camvid", limit=6)
    assert len(data.labels) == 11 and {split: len(found) for split, found in data.splits.items()} == {
        "train": 6,
        "validation": 6,
    }
    mask = data.splits["train"][0]["segmentation"]
    with Image.open(mask.path) as stored:
        values = np.asarray(stored)
    np.testing.assert_array_equal(read_segmentation(mask), np.where(values == 11, 255, values))


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20, unique=True), st.randoms())
@settings(max_examples=25, deadline=None)
def test_colours_come_back_as_their_index(tmp_path_factory, colors, random):
    file = tmp_path_factory.mktemp("mask") / "mask.png"
    indices = np.array([[random.randrange(len(colors)) for _ in range(7)] for _ in range(5)])
    Image.fromarray(np.array(colors, np.uint8)[indices]).save(file)
    coding = MaskCoding(tuple((color, index) for index, color in enumerate(colors)))
    np.testing.assert_array_equal(read_segmentation(MaskFile(str(file), coding)), indices)
