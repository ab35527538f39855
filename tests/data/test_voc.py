"""Pascal VOC folders: boxes, splits, masks, and XML nobody should have to trust."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data import load_data
from kerasvision.data.mask_files import read_segmentation
from kerasvision.data.voc import CLASSES, load_voc, palette
from kerasvision.errors import DataError


def an_object(name="cat", box=(3, 4, 10, 12), more=""):
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object>\n<name>{name}</name>{more}<bndbox>{corners}</bndbox>\n</object>"


def page(*objects, size=(30, 20), filename="a.png"):
    width, height = size
    return (
        f"<annotation>\n<filename>{filename}</filename>\n"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        + "\n".join(objects)
        + "\n</annotation>"
    )


@pytest.fixture
def voc(tmp_path):
    """Factory: writes a VOC folder; name -> text of its XML, and lists of names."""

    def write(pages, lists=None, kind="Main", images=None):
        for folder in ("Annotations", "JPEGImages", f"ImageSets/{kind}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / "Annotations" / f"{name}.xml").write_bytes(content)
        for name in images if images is not None else [f"{name}.png" for name in pages]:
            Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "JPEGImages" / name)
        for name, lines in (lists or {}).items():
            (tmp_path / "ImageSets" / kind / f"{name}.txt").write_text(lines)
        return tmp_path

    return write


def test_corners_are_counted_from_one_and_include_the_last(voc):
    data = load_data(
        voc({"a": page(an_object("dog"), an_object("cat", (1, 1, 30, 20))), "b": page()}), validation_fraction=0
    )
    assert data.labels == ("cat", "dog")
    first, second = data.splits["train"]
    np.testing.assert_array_equal(first["boxes"], [[2, 3, 10, 12], [0, 0, 30, 20]])
    np.testing.assert_array_equal(first["classes"], [1, 0])
    np.testing.assert_array_equal(first["crowd"], [False, False])
    assert [first[key].dtype for key in ("boxes", "classes", "crowd")] == [np.float32, np.int32, bool]
    assert "difficult" not in first and second["boxes"].shape == (0, 4)


def test_difficult_objects_are_marked_in_every_example(voc):
    hard = an_object(more="<difficult>1</difficult>")
    data = load_data(voc({"a": page(hard, an_object()), "b": page(an_object())}), validation_fraction=0)
    first, second = data.splits["train"]
    np.testing.assert_array_equal(first["difficult"], [True, False])
    np.testing.assert_array_equal(second["difficult"], [False])


def test_parts_of_an_object_are_not_objects(voc):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    data = load_data(
        voc({"a": page(an_object(more=part), an_object()[:-9] + part + "</object>"), "b": page()}),
        validation_fraction=0,
    )
    assert data.labels == ("cat",)
    np.testing.assert_array_equal(data.splits["train"][0]["boxes"], [[2, 3, 10, 12]] * 2)


PAGES = {name: page(an_object()) for name in "abcd"}


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": "a\nb\n", "val": "c\n"}, {"train": "ab", "validation": "c"}),
        ({"train": "a\nb\n", "val": "c\n", "test": "d"}, {"train": "ab", "validation": "c", "test": "d"}),
        ({"trainval": "a\nb\nc\n", "test": "d"}, {"train": "abc", "test": "d"}),
        ({"trainval": "a\nb\nc\n", "train": "a\nb\n"}, {"train": "ab", "validation": "c"}),
        ({"trainval": "a\nb\nc\n", "val": "c\n"}, {"train": "ab", "validation": "c"}),
        ({"trainval": "a\nb\nc\n", "train": "a\nb\n", "val": "c\n"}, {"train": "ab", "validation": "c"}),
        ({"train": "a  1\n\n b -1\n"}, {"train": "ab"}),
        ({"cat_train": "a 1\n"}, {"train": "abcd"}),
        ({}, {"train": "abcd"}),
    ],
)
def test_splits_are_those_of_image_sets(voc, lists, expected):
    data = load_data(voc(PAGES, lists), validation_fraction=0)
    found = {split: "".join(example["image"][-5] for example in examples) for split, examples in data.splits.items()}
    assert found == expected


def test_lists_that_cannot_be_used(voc):
    root = voc(PAGES, {"train": "a\nb\nnowhere\n", "val": "c\na\n../b\n"})
    with pytest.raises(DataError) as error:
        load_data(root)
    message = str(error.value)
    assert f"nowhere.xml: file not found (named in {root}/ImageSets/Main/train.txt:3)" in message
    assert (
        f"a: listed before, in {root}/ImageSets/Main/train.txt:1 (named in {root}/ImageSets/Main/val.txt:2)" in message
    )
    assert "without folders" in message and "val.txt:3" in message
    data = load_data(root, on_bad_files="skip")
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 2, "validation": 1}
    (root / "ImageSets/Main/val.txt").write_bytes(b"c\n\xff\n")
    with pytest.raises(DataError, match=r"val\.txt:2: not UTF-8"):
        load_data(root)


BAD = {
    "no class": (page("<object><bndbox></bndbox></object>"), "a.xml:4", "an object without a name"),
    "no name": (page(an_object("")), "a.xml:4", "an object without a name"),
    "one corner": (page("<object><name>x</name><bndbox><xmin>1</xmin></bndbox></object>"), "a.xml:4", "holds 0, nan"),
    "words": (page(an_object(box=("x", 1, 2, 3))), "a.xml:4", "a box of 'x, 1, 2, 3' where numbers"),
    "nan": (page(an_object(box=("nan", 1, 2, 3))), "a.xml:4", "the box holds nan"),
    "swapped": (page(an_object(), an_object(box=(10, 4, 3, 12))), "a.xml:7", "the box is -6 wide"),
    "outside": (page(an_object(box=(31, 4, 33, 12))), "a.xml:4", "covers nothing of the image, 30 x 20 pixels"),
    "huge": (page(an_object(box=(1, 4, "1e300", 12))), "a.xml:4", "expected numbers of pixels"),
    "other size": (page(size=(31, 20)), "a.xml", "has 30 x 20 pixels, but is listed with 31 x 20"),
    "negative size": (page(size=(-30, 20)), "a.xml:1", "a size of -30 x 20"),
    "size of words": (page(size=("wide", 20)), "a.xml:1", "a size of wide x 20"),
    "cut": (page(an_object())[:-9], "a.xml:7", "broken XML"),
    "no xml": ("hello", "a.xml:1", "broken XML"),
    "empty": ("", "a.xml:1", "broken XML"),
    "something else": ("<html></html>", "a.xml:1", "expected <annotation> at the top, got <html>"),
    "entity": ("<annotation><filename>&xxe;</filename></annotation>", "a.xml:1", "undefined entity"),
    "encoding": ('<?xml version="1.0" encoding="klingon"?><annotation/>', "a.xml:1", "broken XML"),
    "zero byte": ("<annotation>\0</annotation>", "a.xml:1", "broken XML"),
    "doctype": ('<?xml version="1.0"?>\n<!DOCTYPE annotation>\n' + page(), "a.xml:2", "a DOCTYPE"),
    "external": (
        '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "a.xml:1",
        "a DOCTYPE",
    ),
    "bomb": (
        "<!DOCTYPE lolz [<!ENTITY a 'ha'>"
        + "".join(f"<!ENTITY {y} '{f'&{x};' * 10}'>" for x, y in zip("abcdefgh", "bcdefghi", strict=True))
        + "]><annotation>&i;</annotation>",
        "a.xml:1",
        "a DOCTYPE",
    ),
    "bomb in UTF-16": (
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "b">]>' + page()).encode("utf-16"),
        "a.xml:1",
        "a DOCTYPE",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_annotations_stop_or_take_their_image_out(voc, kind):
    text, where, reason = BAD[kind]
    root = voc({"a": text, "b": page(an_object())})
    with pytest.raises(DataError) as error:
        load_data(root)
    assert reason in str(error.value) and f"{root}/Annotations/{where}" in str(error.value)
    data = load_data(root, on_bad_files="skip", validation_fraction=0)
    assert [example["image"][-5:] for example in data.splits["train"]] == ["b.png"]
    assert reason in data.skipped[0].reason and data.skipped[0].origin == f"{root}/Annotations/{where}"


def test_deep_xml(voc):
    root = voc({"a": "<annotation>" + "<x>" * 200_000, "b": page(an_object())})
    assert len(load_data(root, on_bad_files="skip", validation_fraction=0).skipped) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_encodings(voc, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + page(an_object("Zürich"))
    assert load_data(voc({"a": text.encode(encoding), "b": page()}), validation_fraction=0).labels == ("Zürich",)


def test_name_of_the_image(voc):
    """The file with the annotation's own name counts; else the one it names, inside the folder."""
    root = voc({"a": page(an_object(), filename="other.png"), "b": page()}, images=["a.png", "b.png", "other.png"])
    assert load_data(root, validation_fraction=0).splits["train"][0]["image"].endswith("a.png")
    (root / "JPEGImages/a.png").unlink()
    assert load_data(root, validation_fraction=0).splits["train"][0]["image"].endswith("other.png")
    for name in ("../../x.png", "/etc/x.png"):
        (root / "Annotations/a.xml").write_text(page(filename=name))
        with pytest.raises(DataError, match=r"leads out of the data folder .*a\.xml:1"):
            load_data(root)
    (root / "Annotations/a.xml").write_text(page(filename=""))
    with pytest.raises(DataError, match=r"JPEGImages/a\.jpg: file not found \(named in .*a\.xml\)"):
        load_data(root)


def test_folder_without_annotations(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.xml files"):
        load_data(tmp_path, "voc")
    with pytest.raises(DataError, match=r"expected JPEGImages/ and SegmentationClass/"):
        load_data(tmp_path, "voc_segmentation")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"is a file. Expected the folder"):
        load_data(tmp_path / "file", "voc")


def test_palette_is_that_of_the_development_kit():
    """The first colours as VOC's VOClabelcolormap.m gives them."""
    colors = {index: color for color, index in palette(21)}
    assert [colors[index] for index in (0, 1, 2, 8, 15, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (64, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]
    assert colors[255] == (224, 224, 192) and len(CLASSES) == 21


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_masks_as_palette_files_and_as_colours(voc, mode):
    root = voc({"a": page(), "b": page()}, {"train": "a\n", "val": "b\n"}, kind="Segmentation")
    (root / "SegmentationClass").mkdir()
    indices = np.array([[0, 15], [255, 20]], np.uint8).repeat(10, 0).repeat(15, 1)
    image = Image.fromarray(indices, "P")
    colors = {index: color for color, index in palette(21)}
    image.putpalette([channel for index in range(256) for channel in colors.get(index, (1, 2, 3))])
    for name in "ab":
        image.convert(mode).save(root / f"SegmentationClass/{name}.png")
    data = load_data(root, "voc_segmentation")
    assert data.labels == CLASSES and {split: len(found) for split, found in data.splits.items()} == {
        "train": 1,
        "validation": 1,
    }
    np.testing.assert_array_equal(read_segmentation(data.splits["train"][0]["segmentation"]), indices)
    (root / "Annotations/a.xml").unlink()
    (root / "Annotations/b.xml").unlink()
    assert load_data(root).splits == data.splits


def test_bccd(real_data):
    listing = load_voc(real_data / "bccd")
    assert listing.labels == ("Platelets", "RBC", "WBC") and not listing.problems
    assert {split: len(items) for split, items in listing.splits.items()} == {"train": 205, "validation": 87}
    boxes = np.concatenate([item.objects.boxes for items in listing.splits.values() for item in items])
    assert boxes.min() >= -1 and boxes.max() <= 640 and (boxes[:, 2:] > boxes[:, :2]).all()


def test_many_files_are_read_in_time(voc):
    """A hundredth of the aim (100,000 images in 20 s), with room for a busy machine."""
    count = 500
    root = voc({f"{number:04}": page(*[an_object()] * 7) for number in range(count)}, images=[])
    start = time.process_time()
    assert sum(len(item.objects.boxes) for item in load_voc(root).splits["train"]) == count * 7
    assert time.process_time() - start < 20 * count / 100_000 * 5


text = st.text(st.characters(codec="utf-8"), max_size=8)


@given(
    st.recursive(
        text.map(lambda word: word.replace("<", "").replace("&", "")),
        lambda inner: st.tuples(
            st.sampled_from(["annotation", "object", "name", "bndbox", "xmin", "size", "width", "part", "difficult"]),
            st.lists(inner, max_size=4),
        ).map(lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"),
        max_leaves=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_tree_is_read_or_listed(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("voc")
    (root / "Annotations").mkdir()
    (root / "Annotations/a.xml").write_text(f"<annotation>{tree}</annotation>", encoding="utf-8")
    listing = load_voc(root)
    assert len(listing.splits["train"]) + len(listing.problems) == 1
    for problem in listing.problems:
        assert f"{root}/Annotations/a.xml:" in problem.origin
