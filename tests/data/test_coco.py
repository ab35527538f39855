"""COCO indices: what they say arrives, and everything that can be wrong with them is named by file and line."""

import json
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data import load_data
from kerasvision.data.coco import load_coco
from kerasvision.data.segmentations import Segmentations, check_segmentation, extent, unpack_counts
from kerasvision.errors import DataError
from kerasvision.masks import decode_masks, encode_mask, mask_extents

SQUARE = [[2.0, 2.0, 12.0, 2.0, 12.0, 9.0, 2.0, 9.0]]


def save_images(folder, names, size=(20, 30)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / name)


def annotation(number, image=1, category=7, box=(2, 2, 10, 7), **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0, **more}


def index(annotations, images=("a.png", "b.png"), categories=((7, "cat"), (3, "dog"))):
    return {
        "images": [
            {"id": number, "file_name": name, "width": 30, "height": 20} for number, name in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


def lines(content):
    """JSON with an entry in each line; of two images and some objects, object 0 stands in line 5."""
    parts = [f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in content[key]) + "\n]" for key in content]
    return "{" + ",".join(parts) + "}"


@pytest.fixture
def coco(tmp_path):
    """Factory: writes an index beside two images of 30 x 20 pixels."""

    def write(content, name="train.json"):
        save_images(tmp_path, ["a.png", "b.png"])
        (tmp_path / name).write_text(content if isinstance(content, str) else lines(content))
        return tmp_path / name

    return write


def test_boxes_become_corners_and_classes_follow_the_ids(coco):
    file = coco(
        index([annotation(1), annotation(2, category=3, box=(0.5, 1.5, 3, 4), iscrowd=1), annotation(3, image=2)])
    )
    data = load_data(file, validation_fraction=0)
    assert data.labels == ("dog", "cat")
    first, second = data.splits["train"]
    assert first["image"].endswith("a.png")
    np.testing.assert_array_equal(first["boxes"], [[2, 2, 12, 9], [0.5, 1.5, 3.5, 5.5]])
    np.testing.assert_array_equal(first["classes"], [1, 0])
    np.testing.assert_array_equal(first["crowd"], [False, True])
    assert [first[key].dtype for key in ("boxes", "classes", "crowd")] == [np.float32, np.int32, bool]
    assert "masks" not in first and "keypoints" not in first and "difficult" not in first
    np.testing.assert_array_equal(second["classes"], [1])


def test_image_without_objects(coco):
    data = load_data(coco(index([annotation(1, segmentation=SQUARE)])), validation_fraction=0)
    empty = data.splits["train"][1]
    assert empty["boxes"].shape == (0, 4) and empty["classes"].shape == (0,) and list(empty["masks"]) == []


def test_polygons_and_both_kinds_of_run_lengths(coco):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:11] = 1
    compressed = encode_mask(mask)
    plain = {"size": [20, 30], "counts": unpack_counts(compressed["counts"]).tolist()}
    box = (4, 3, 7, 6)
    parts = [SQUARE, compressed, plain]
    file = coco(index([annotation(number, box=box, segmentation=part) for number, part in enumerate(parts)]))
    masks = load_data(file, validation_fraction=0).splits["train"][0]["masks"]
    assert list(masks) == parts and masks[1] == compressed and masks[:2] == parts[:2]
    decoded = decode_masks(masks, (20, 30))
    np.testing.assert_array_equal(decoded[1], mask)
    np.testing.assert_array_equal(decoded[2], mask)
    np.testing.assert_array_equal(decoded[0], np.pad(np.ones((7, 10)), ((2, 11), (2, 18))))


def test_box_of_an_object_that_has_only_a_mask(coco):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:11] = 1
    entries = [annotation(1, segmentation=SQUARE), annotation(2, segmentation=encode_mask(mask))]
    for entry in entries:
        del entry["bbox"]
    boxes = load_data(coco(index(entries)), validation_fraction=0).splits["train"][0]["boxes"]
    np.testing.assert_array_equal(boxes, [[2, 2, 12, 9], [4, 3, 11, 9]])


def test_keypoints(coco):
    content = index([annotation(1, keypoints=[1, 2, 2, 3, 4, 1]), annotation(2, category=3)])
    content["categories"][0]["keypoints"] = ["nose", "tail"]
    data = load_data(coco(content), validation_fraction=0)
    assert data.keypoint_names == ("nose", "tail")
    first, second = data.splits["train"]
    np.testing.assert_array_equal(first["keypoints"], [[[1, 2, 2], [3, 4, 1]], np.zeros((2, 3))])
    assert second["keypoints"].shape == (0, 2, 3)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "files",
    [
        {"annotations/instances_train2017.json": "train2017", "annotations/instances_val2017.json": "val2017"},
        {
            "annotations/instances_train2017.json": "images/train2017",
            "annotations/instances_val2017.json": "images/val2017",
        },
        {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "valid"},
        {"train.json": "train", "val.json": "val"},
        {"train.json": "images/train", "val.json": "images/val"},
        {"train.json": "images", "val.json": "images"},
    ],
)
def test_layouts_of_folders(tmp_path, files):
    for number, (file, folder) in enumerate(files.items()):
        names = [f"{number}a.png", f"{number}b.png"]
        write(tmp_path / file, index([annotation(1)], names))
        save_images(tmp_path / folder, names)
    data = load_data(tmp_path)
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 2, "validation": 2}
    (first, second) = files.values()
    assert data.splits["train"][0]["image"] == str(tmp_path / first / "0a.png")
    assert data.splits["validation"][1]["image"] == str(tmp_path / second / "1b.png")


def test_other_indices_beside_the_instances(tmp_path):
    for name in ("instances_train2017", "person_keypoints_train2017"):
        write(tmp_path / "annotations" / f"{name}.json", index([annotation(1)]))
    save_images(tmp_path / "train2017", ["a.png", "b.png"])
    assert len(load_data(tmp_path, validation_fraction=0).splits["train"]) == 2
    write(tmp_path / "annotations" / "instances_train2014.json", index([annotation(1)]))
    with pytest.raises(DataError, match=r"2 indices for the train split: .*Give the \.json file"):
        load_data(tmp_path)


def test_categories_that_contradict_each_other(tmp_path):
    write(tmp_path / "train.json", index([annotation(1)]))
    write(tmp_path / "val.json", index([annotation(1)], categories=((7, "cow"), (3, "dog"))))
    with pytest.raises(DataError, match=r"val\.json:1, categories\[0\]: category 7 is called 'cow', .* 'cat'"):
        load_coco(tmp_path)


BAD = {
    "unknown category": (annotation(1, category=99), "no category with the id 99"),
    "unknown image": (annotation(1, image=99), "no image with the id 99"),
    "negative width": (annotation(1, box=(2, 2, -3, 4)), "the box is -3 wide"),
    "zero height": (annotation(1, box=(2, 2, 3, 0)), "3 wide and 0 high; expected more than 0"),
    "width lost in rounding": (annotation(1, box=(1e6, 2, 0, 1)), "the box is 0 wide"),
    "far away": (annotation(1, box=(2, 2, 1e300, 4)), "expected numbers of pixels"),
    "outside": (annotation(1, box=(31, 2, 5, 5)), "covers nothing of the image, 30 x 20 pixels"),
    "short box": (annotation(1, box=(2, 2, 3)), "a box of 3 numbers"),
    "no box": (annotation(1, box=()), "the box is 0 wide"),
    "two points": (annotation(1, segmentation=[[1, 1, 5, 5]]), "a polygon has 4 numbers"),
    "odd polygon": (annotation(1, segmentation=[[1, 1, 5, 5, 7, 7, 8]]), "a polygon has 7 numbers"),
    "polygon far away": (annotation(1, segmentation=[[1, 1, 5, 5, 1e5, 7]]), "a polygon reaches from 1 to 100000"),
    "other size": (annotation(1, segmentation={"size": [9, 9], "counts": [81]}), "a mask of 9 x 9 pixels in an image"),
    "runs too long": (annotation(1, segmentation={"size": [20, 30], "counts": [600, 9]}), "add up to 609 of 600"),
    "negative run": (annotation(1, segmentation={"size": [20, 30], "counts": [-5, 605]}), "run lengths outside"),
    "damaged runs": (annotation(1, segmentation={"size": [20, 30], "counts": "\x7f~~"}), "cannot be read"),
    "no segmentation": (annotation(1, segmentation="none"), "neither polygons nor run lengths"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_objects_stop_or_take_their_image_out(coco, kind):
    bad, reason = BAD[kind]
    good = annotation(2, image=2, **({"segmentation": SQUARE} if "segmentation" in bad else {}))
    file = coco(index([good, bad]))
    with pytest.raises(DataError) as error:
        load_data(file)
    assert reason in str(error.value) and f"{file}:6, annotations[1]" in str(error.value)
    data = load_data(file, on_bad_files="skip", validation_fraction=0)
    left = ["a.png", "b.png"] if bad["image_id"] == 99 else ["b.png"]
    assert [example["image"][-5:] for example in data.splits["train"]] == left
    assert reason in data.skipped[0].reason and data.skipped[0].origin == f"{file}:6, annotations[1]"


def test_boxes_are_clipped(coco):
    data = load_data(coco(index([annotation(1, box=(-5, 15, 100, 100))])), validation_fraction=0)
    np.testing.assert_array_equal(data.splits["train"][0]["boxes"], [[0, 15, 30, 20]])


def test_object_without_a_mask_among_others(coco):
    file = coco(index([annotation(1, segmentation=SQUARE), annotation(2, image=2, segmentation=[])]))
    with pytest.raises(DataError, match="no segmentation, which other objects of the set have"):
        load_data(file)


def test_empty_segmentations_are_no_masks(coco):
    data = load_data(coco(index([annotation(1, segmentation=[])])), validation_fraction=0)
    assert "masks" not in data.splits["train"][0]


def test_duplicate_ids_and_files(coco):
    twice = index([annotation(1), annotation(1, image=2)])
    with pytest.raises(DataError, match=r"the annotation id 1 is used twice \(named in .*:6, annotations\[1\]"):
        load_data(coco(twice))
    content = index([annotation(1)], images=("a.png", "b.png", "c.png"))
    content["images"][1]["id"] = 1
    file = coco(content)
    save_images(file.parent, ["c.png"])
    with pytest.raises(DataError, match=r"the image id 1 is used twice \(named in .*train\.json:3, images\[1\]"):
        load_data(file)
    # Whose object it is cannot be said, so neither of the two stays.
    data = load_data(file, on_bad_files="skip", validation_fraction=0)
    assert [example["image"][-5:] for example in data.splits["train"]] == ["c.png"]
    content = index([annotation(1)], images=("a.png", "a.png"))
    with pytest.raises(DataError, match=r"the file is listed twice, before as images\[0\]"):
        load_data(coco(content))
    with pytest.raises(DataError, match=r"categories\[1\]: the category id 7 is used twice"):
        load_data(coco(index([], categories=((7, "a"), (7, "b")))))
    with pytest.raises(DataError, match="several classes of one name: a"):
        load_data(coco(index([], categories=((7, "a"), (8, "a")))))


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/a.png"])
def test_paths_that_leave_the_folder(coco, name):
    file = coco(index([annotation(1, image=2)], images=(name, "b.png")))
    with pytest.raises(DataError, match=r"leads out of the data folder .*train\.json:2, images\[0\]"):
        load_data(file)
    assert len(load_data(file, on_bad_files="skip", validation_fraction=0).splits["train"]) == 1


def test_paths_with_spaces_and_other_scripts(tmp_path):
    names = ["two words.png", "żółć/画像 \u00e9.png"]
    save_images(tmp_path, names)
    write(tmp_path / "train.json", index([annotation(1), annotation(2, image=2)], names))
    data = load_data(tmp_path / "train.json", validation_fraction=0)
    assert [len(example["boxes"]) for example in data.splits["train"]] == [1, 1]


def test_missing_image_names_its_line(coco):
    file = coco(index([annotation(1)], images=("a.png", "nowhere.png")))
    with pytest.raises(DataError, match=r"nowhere\.png: file not found \(named in .*train\.json:3, images\[1\]\)"):
        load_data(file)


def test_image_of_another_size(coco):
    content = index([annotation(1, image=2)])
    content["images"][0]["width"] = 31
    with pytest.raises(DataError, match=r"a\.png: has 30 x 20 pixels, but is listed with 31 x 20"):
        load_data(coco(content))
    for size in (0, -30, 2.5):
        content["images"][0]["width"] = size
        with pytest.raises(DataError, match=rf"a size of {size} x 20; expected whole numbers"):
            load_data(coco(content))


def test_image_that_lies_on_its_side(coco):
    """Coordinates are those of the upright image: an index made without looking at the EXIF tag is refused."""
    content = index([annotation(1)])
    file = coco(content)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(file.parent / "a.png", exif=exif)
    with pytest.raises(DataError, match=r"20 x 30 pixels \(upright: EXIF orientation 6\), but is listed with 30 x 20"):
        load_data(file)
    content["images"][0] |= {"width": 20, "height": 30}
    assert len(load_data(coco_again(file, content), validation_fraction=0).splits["train"]) == 2


def coco_again(file, content):
    file.write_text(lines(content))
    return file


def test_sizes_may_be_missing(coco):
    content = index([annotation(1)])
    for image in content["images"]:
        del image["width"], image["height"]
    assert len(load_data(coco(content), validation_fraction=0).splits["train"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"bbox": [2', '"bbox": [NaN', r"train\.json:5: a number that is no JSON \(NaN or Infinity\)"),
        ('"bbox": [2', '"bbox": [-Infinity', r"train\.json:5: "),
        ('"bbox": [2', '"bbox": ["2"', r"train\.json:5, annotations\[0\]: not what COCO's JSON has there.*bbox"),
        ('"file_name": "a.png"', '"file_name": 5', r"train\.json:2, images\[0\]: not what COCO"),
        ('"annotations"', '"remarks"', "no annotations"),
        ("}", "", r"train\.json:\d"),
        ("{", "", r"train\.json:1"),
    ],
)
def test_broken_json(coco, old, new, message):
    text = lines(index([annotation(1)]))
    assert old in text
    with pytest.raises(DataError, match=message):
        load_coco(coco(text.replace(old, new, 1)))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff\xfe{}", b'{"images": [], "annotations": [], "categories": []}']
)
def test_files_without_an_index(tmp_path, content):
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.json"):
        load_data(tmp_path / "train.json")


def test_json_nested_without_end(tmp_path):
    (tmp_path / "train.json").write_bytes(b'{"images": ' + b"[" * 100_000)
    with pytest.raises(DataError, match=r"train\.json:1"):
        load_coco(tmp_path / "train.json")


def test_byte_order_mark(coco):
    file = coco(index([annotation(1, category=99)]))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    with pytest.raises(DataError, match=r"train\.json:5, annotations\[0\]"):
        load_data(file)


def test_all_images_bad(coco):
    with pytest.raises(DataError, match=r"2 entries of .* cannot be used"):
        load_data(coco(index([annotation(1, category=9), annotation(2, image=2, category=9)])), on_bad_files="skip")


def test_nuclei(real_data):
    listing = load_coco(real_data / "nuclei")
    assert {split: len(items) for split, items in listing.splits.items()} == {"train": 380, "validation": 80}
    assert sum(len(item.objects.boxes) for items in listing.splits.values() for item in items) == 20_310
    data = load_data(real_data / "nuclei/val.json")
    for example in data.splits["validation"][:20]:
        size = data.infos[example["image"]].upright_size
        np.testing.assert_array_equal(mask_extents(decode_masks(example["masks"], size)), example["boxes"])


def test_a_large_index_is_read_in_time(tmp_path):
    """A thousandth of the aim (100,000 images in 20 s), with room for a busy machine."""
    images = 2_000
    names = [f"{number}.jpg" for number in range(images)]
    entries = [annotation(number, image=number // 7 + 1, segmentation=SQUARE) for number in range(images * 7)]
    write(tmp_path / "train.json", index(entries, names))
    start = time.process_time()
    listing = load_coco(tmp_path / "train.json")
    assert time.process_time() - start < 20 * images / 100_000 * 5
    assert sum(len(item.objects.boxes) for item in listing.splits["train"]) == images * 7


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_run_lengths_are_those_of_pycocotools(rows):
    mask = np.array(rows, np.uint8)
    encoded = encode_mask(mask)
    runs = unpack_counts(encoded["counts"])
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(values.reshape(mask.T.shape).T, mask)
    assert not check_segmentation(encoded, mask.shape)
    assert check_segmentation(encoded, (mask.shape[0] + 1, mask.shape[1]))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_whatever_passes_the_check_can_be_decoded(text, height, width):
    segmentation = {"size": [height, width], "counts": text}
    if not check_segmentation(segmentation, (height, width)):
        assert decode_masks([segmentation], (height, width)).shape == (1, height, width)


@given(
    st.lists(
        st.lists(st.floats(-60, 120, width=32), min_size=6, max_size=10).filter(lambda p: len(p) % 2 == 0), max_size=3
    )
)
@settings(max_examples=100, deadline=None)
def test_polygons_that_pass_the_check_can_be_decoded(polygons):
    if not check_segmentation(polygons, (30, 40)):
        assert decode_masks([polygons], (30, 40)).shape == (1, 30, 40)
        left, top, right, bottom = extent(polygons)
        assert left <= right and top <= bottom


def test_segmentations_are_a_sequence():
    entries = [SQUARE, {"size": [2, 2], "counts": [4]}]
    packed = Segmentations.of(entries)
    assert list(packed) == entries and len(packed) == 2 and packed[-1] == entries[1] and packed[:1] == entries[:1]
    assert packed == entries and packed == Segmentations.of(entries) and packed != Segmentations.of(entries[:1])
    assert hash(packed) == hash(Segmentations(msgspec.json.encode(entry) for entry in entries))
    assert list(Segmentations.of([])) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("id", "image_id", "category_id", "bbox", "segmentation", "keypoints", "iscrowd")


@given(st.lists(st.tuples(st.sampled_from(KEYS), json_values | st.lists(st.floats(-40, 40), max_size=9)), max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_value_in_any_field(tmp_path_factory, changes):
    """Listed as bad, refused, or read: nothing else happens."""
    file = tmp_path_factory.mktemp("coco") / "train.json"
    entry = annotation(1, segmentation=SQUARE, keypoints=[1, 1, 2])
    content = index([entry | dict(changes), annotation(2, image=2, segmentation=SQUARE)])
    content["categories"][0]["keypoints"] = ["nose"]
    file.write_text(json.dumps(content))
    try:
        listing = load_coco(file)
    except DataError as error:
        assert str(file) in str(error)
        return
    assert len(listing.splits["train"]) + len({problem.path for problem in listing.problems}) >= 2
    for item in listing.splits["train"]:
        assert np.isfinite(item.objects.boxes).all() and (item.objects.classes >= 0).all()
        assert len(item.objects.masks) == len(item.objects.boxes)
