"""TFRecord shards: what is written comes back, and what is damaged is found."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasvision.data import Data, load_data, load_image
from kerasvision.data.inspect import Decoder, ImageInfo
from kerasvision.data.mask_files import MaskCoding, MaskFile, read_segmentation
from kerasvision.data.records import decode_features, encode_png, serialize, text
from kerasvision.data.shard_index import check_shards, sha256_of
from kerasvision.data.shards import write_shards
from kerasvision.data.storage import read_bytes
from kerasvision.errors import DataError
from kerasvision.masks import encode_mask


def write_photos(folder: Path, count: int = 7) -> list[str]:
    """JPEG, PNG of grey, 16 bits and palette, and a turned JPEG, of different sizes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        pixels = rng.integers(0, 256, (10 + index, 12, 3), np.uint8)
        image = Image.fromarray(pixels)
        name, options = f"{index}.jpg", {}
        if index % 5 == 1:
            image, name = image.convert("L"), f"{index}.png"
        if index % 5 == 2:
            image, name = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250), f"{index}.png"
        if index % 5 == 3:
            image, name = image.quantize(8), f"{index}.png"
        if index % 5 == 4:
            exif = Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif
        image.save(folder / name, **options)
        paths.append(str(folder / name))
    return paths


def detection(folder: Path) -> Data:
    """Every field at once: boxes, masks as polygons and both kinds of run lengths, keypoints, a segmentation."""
    paths = write_photos(folder, 5)

    def rle(*size: int) -> dict:
        mask = np.zeros(size, np.uint8)
        mask[3:6, 2:9] = 1
        return encode_mask(mask)

    masks = [
        [[[1.5, 2.25, 7.1, 2.0, 3.3333333333, 9.0], [0, 0, 4, 0, 4, 4]], rle(10, 12)],
        [],
        [{"size": [12, 12], "counts": [3, 5, 136]}],
        [{**rle(13, 12), "counts": rle(13, 12)["counts"].encode()}],
        [rle(12, 14), rle(12, 14)],  # the last photograph is turned
    ]
    rng = np.random.default_rng(1)
    examples = []
    for index, (path, segmentations) in enumerate(zip(paths, masks, strict=True)):
        count = len(segmentations)
        examples.append(
            {
                "image": path,
                "key": f"ü/{index}",
                "group": f"day {index % 2}",
                "boxes": rng.normal(5, 3, (count, 4)).astype(np.float32),
                "classes": rng.integers(0, 3, count).astype(np.int32),
                "crowd": rng.random(count) < 0.5,
                "difficult": rng.random(count) < 0.5,
                "masks": segmentations,
                "keypoints": rng.normal(5, 3, (count, 2, 3)).astype(np.float32),
                "segmentation": rng.integers(0, 5, (8, 6)).astype(np.int64),
            }
        )
    return Data(
        ("a", "b", "c"),
        {"train": examples[:3], "validation": examples[3:4], "test": examples[4:]},
        source="photos",
        keypoint_names=("nose", "tail"),
    )


def assert_same(written: Data, read: Data) -> None:
    assert (read.labels, read.multi_label, read.keypoint_names) == (
        written.labels,
        written.multi_label,
        written.keypoint_names,
    )
    assert list(read.splits) == list(written.splits)
    for split, examples in written.splits.items():
        for ours, theirs in itertools.zip_longest(examples, read.splits[split]):
            assert set(theirs) == set(ours) | {"key"}
            for name in set(ours) - {"image", "segmentation", "masks"}:
                np.testing.assert_array_equal(theirs[name], ours[name])
                assert np.asarray(theirs[name]).dtype == np.asarray(ours[name]).dtype
                assert np.shape(theirs[name]) == np.shape(ours[name])


def test_every_field_comes_back(tmp_path):
    data = detection(tmp_path / "photos")
    write_shards(data, tmp_path / "shards", shards=2)
    read = load_data(tmp_path / "shards", verify=True)
    assert_same(data, read)
    for split, examples in data.splits.items():
        for ours, theirs in zip(examples, read.splits[split], strict=True):
            assert read_bytes(theirs["image"]) == Path(ours["image"]).read_bytes()
            np.testing.assert_array_equal(read_segmentation(theirs["segmentation"]), ours["segmentation"])
            plain = json.loads(json.dumps(ours["masks"], default=lambda counts: counts.decode()))
            assert theirs["masks"] == plain


def test_pixels_come_back_bit_for_bit(tmp_path):
    paths = write_photos(tmp_path / "a" / "x") + write_photos(tmp_path / "a" / "y", 3)
    data = load_data(tmp_path / "a")
    write_shards(data, tmp_path / "shards", shard_mb=0.001)
    assert len(list((tmp_path / "shards").glob("train-*.tfrecord"))) > 2
    read = load_data(tmp_path / "shards")
    assert_same(data, read)
    assert [example["key"] for example in read.splits["train"]] == [e["key"] for e in data.splits["train"]]
    for split in data.splits:
        ours, theirs = (
            [images.numpy() for images, _ in each.batches(split, image_size=(9, 9), cache=False)]
            for each in (data, read)
        )
        np.testing.assert_array_equal(np.concatenate(ours), np.concatenate(theirs))
    assert len(paths) == sum(map(len, read.splits.values()))
    first = read.splits["train"][0]["image"]
    np.testing.assert_array_equal(load_image(first, (9, 9)), load_image(data.splits["train"][0]["image"], (9, 9)))


def test_arrays_of_any_form(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)]
    examples = [
        {"image": rng.integers(0, 256, shape, np.uint8), "labels": [0, 2, 1][: i % 4]} for i, shape in enumerate(shapes)
    ]
    data = Data(("a", "b", "c"), {"train": examples}, multi_label=True)
    write_shards(data, tmp_path / "shards")
    read = load_data(tmp_path / "shards", validation_fraction=0)
    assert [example["labels"] for example in read.splits["train"]] == [[], [0], [0, 2], [0, 2, 1]]
    for ours, theirs in zip(examples, read.splits["train"], strict=True):
        np.testing.assert_array_equal(load_image(theirs["image"], (5, 4)), load_image(ours["image"], (5, 4)))


def test_the_same_set_gives_the_same_bytes(tmp_path):
    data = detection(tmp_path / "photos")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        write_shards(data, folder, shards=2)
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == sorted(
        ["index.json"]
        + [
            f"{split}-{number:05}-of-{count:05}.{suffix}"
            for split, count in (("train", 2), ("validation", 1), ("test", 1))
            for number in range(count)
            for suffix in ("index", "tfrecord")
        ]
    )


def test_other_programs_read_the_records(tmp_path):
    data = detection(tmp_path / "photos")
    write_shards(data, tmp_path / "shards", shards=1)
    records = list(tf.data.TFRecordDataset(str(tmp_path / "shards/train-00000-of-00001.tfrecord")))
    assert len(records) == 3
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "boxes": tf.io.VarLenFeature(tf.float32),
        "classes": tf.io.VarLenFeature(tf.int64),
    }
    for record, example in zip(records, data.splits["train"], strict=True):
        parsed = tf.io.parse_single_example(record, features)
        assert parsed["image/encoded"] == Path(example["image"]).read_bytes()
        np.testing.assert_array_equal(tf.sparse.to_dense(parsed["boxes"]), example["boxes"].ravel())


def test_a_coded_mask_is_written_as_classes(tmp_path):
    (tmp_path / "mask.png").write_bytes(encode_png(np.full((4, 4), 11, np.uint8)))
    mask = MaskFile(str(tmp_path / "mask.png"), MaskCoding(values=((11, 255),)))
    image = np.zeros((4, 4, 3), np.uint8)
    write_shards(Data(("a", "b"), {"test": [{"image": image, "segmentation": mask}]}), tmp_path / "shards")
    (example,) = load_data(tmp_path / "shards").splits["test"]
    assert (read_segmentation(example["segmentation"]) == 255).all()


@pytest.fixture
def shards(tmp_path) -> Path:
    write_photos(tmp_path / "set/x")
    write_photos(tmp_path / "set/y")
    write_shards(load_data(tmp_path / "set", validation_fraction=0), tmp_path / "shards", shards=2)
    return tmp_path / "shards"


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(bytes(content))


def test_a_set_that_is_not_whole(shards):
    (shards / "train-00000-of-00002.tfrecord").unlink()
    file = shards / "train-00001-of-00002.tfrecord"
    file.write_bytes(file.read_bytes()[:-7])
    size = file.stat().st_size
    with pytest.raises(DataError, match=rf"(?s)00000-of-00002.tfrecord: missing.*{file.name}: {size} bytes, expected"):
        load_data(shards)


def test_a_damaged_image_is_found_when_it_is_read(shards):
    data = load_data(shards, validation_fraction=0)
    reference = data.splits["train"][7 + 2]["image"]
    name, offset, length = re.fullmatch(r".*/(.*)#2:(\d+)\+(\d+):\w{8}", reference).groups()
    assert name == "train-00001-of-00002.tfrecord"
    flip(shards / name, int(offset) + int(length) // 2)
    assert len(load_data(shards, validation_fraction=0).splits["train"]) == 14
    with pytest.raises(DataError, match=f"{name}: record 2 is damaged"):
        load_image(reference, (4, 4))
    with pytest.raises(DataError, match=f"{name}: wrong checksum, record 2 is damaged"):
        load_data(shards, verify=True)


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_flipped_bit_anywhere_is_found(shards, place):
    file = sorted(shards.glob("*.tfrecord"))[0]
    flip(file, file.stat().st_size * place // 60)
    with pytest.raises(DataError, match=f"{file.name}: wrong checksum, record [0-6] is damaged"):
        check_shards(shards)


def test_a_damaged_index_is_found_at_once(shards):
    flip(shards / "train-00000-of-00002.index", 100)
    with pytest.raises(DataError, match="train-00000-of-00002.index is damaged"):
        load_data(shards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 2, but version 1 is read here"),
        ({"labels": "abc"}, r"index.json is damaged: Expected `array`, got `str`.*labels"),
        ({"splits": {}}, "No images in"),
        ({"extra": 1}, "unknown field"),
    ],
)
def test_an_index_that_says_something_else(shards, change, message):
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(DataError, match=message):
        load_data(shards)


def test_a_mutated_index_is_refused_or_says_the_same(shards):
    """index.json is the one file without a checksum."""
    file = shards / "index.json"
    content = file.read_bytes()
    expected = load_data(shards, validation_fraction=0)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)
        for place in rng.integers(0, max(len(damaged), 1), 2):
            damaged[place : place + 1] = rng.bytes(rng.integers(0, 3))
        file.write_bytes(damaged)
        try:
            read = load_data(shards, validation_fraction=0)
        except DataError:
            refused += 1
        else:
            assert [e["image"] for e in read.splits["train"]] == [e["image"] for e in expected.splits["train"]]
    assert refused > 100


def rewrite(shards: Path, features: dict[str, tf.train.Feature | None]) -> None:
    """Changes the first record of an index, and its checksum with it."""
    file = shards / "train-00000-of-00002.index"
    rows = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    changed = {**decode_features(rows[0]), **features}
    rows[0] = serialize({name: feature for name, feature in changed.items() if feature is not None})
    with tf.io.TFRecordWriter(str(file)) as writer:
        for row in rows:
            writer.write(row)
    index = json.loads((shards / "index.json").read_text())
    stored = index["splits"]["train"][0]["index"]
    stored["bytes"], stored["sha256"] = file.stat().st_size, sha256_of(file)
    (shards / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "features",
    [
        {"image/slice": None},
        {"image/decoder": text("WIZARD")},
        {"label": tf.train.Feature(int64_list=tf.train.Int64List(value=[9]))},
        {"label": text("cat")},
        {"boxes": tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2, 3]))},
        {"masks": text('{"size": [9000, 9000], "counts": [1]}')},
        {"masks": text("[[1, 2")},
    ],
)
def test_records_that_write_shards_does_not_write(shards, features):
    rewrite(shards, features)
    with pytest.raises(DataError, match="train-00000-of-00002.index: record 0 is unusable"):
        load_data(shards)


def test_files_outside_the_folder_are_refused(shards):
    text = (shards / "index.json").read_text()
    (shards / "index.json").write_text(text.replace("train-00000-of-00002.tfrecord", "../../secret"))
    with pytest.raises(DataError, match="'../../secret' is not the name of a file in this folder"):
        load_data(shards)


def test_a_folder_in_use_is_left_alone(shards, tmp_path):
    before = sorted(path.name for path in shards.iterdir())
    data = load_data(tmp_path / "set")
    with pytest.raises(DataError, match="shards exists already"):
        write_shards(data, shards)
    assert sorted(path.name for path in shards.iterdir()) == before


def test_nothing_is_left_of_a_failed_writing(tmp_path):
    write_photos(tmp_path / "set/x")
    write_photos(tmp_path / "set/y")
    data = load_data(tmp_path / "set")
    Path(data.splits["train"][-1]["image"]).unlink()
    with pytest.raises(DataError, match=r"Example \d+ of the train split cannot be written: .*No such file"):
        write_shards(data, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_cannot_be_written(tmp_path):
    image = np.zeros((4, 4), np.uint8)
    for examples, message in (
        ([], "no examples"),
        ([{"image": image, "label": 0, "speed": 3}], "Cannot write the fields speed"),
        ([{"image": image, "label": 0}, {"image": image}], "examples with the same fields"),
        (
            [{"image": image, "segmentation": np.full((4, 4), 256)}],
            r"class indices 0..255, got \[4, 4\] with values 0 to 256",
        ),
        ([{"image": image.astype(float) - 1, "label": 0}], "Pixels must lie in 0..255"),
    ):
        data = Data(("a",), {})
        data.splits["train"] = examples
        with pytest.raises(DataError, match=message):
            write_shards(data, tmp_path / "shards")
    with pytest.raises(DataError, match="shards of at least 1"):
        write_shards(Data(("a",), {"train": [{"image": image, "label": 0}]}), tmp_path / "shards", shards=0)


def test_known_decoders_are_kept(tmp_path):
    """An image is not inspected again, so what the inspection found must come along."""
    write_photos(tmp_path / "set/x")
    write_photos(tmp_path / "set/y", 1)
    data = load_data(tmp_path / "set", validation_fraction=0)
    write_shards(data, tmp_path / "shards")
    read = load_data(tmp_path / "shards", validation_fraction=0)
    for ours, theirs in zip(data.splits["train"], read.splits["train"], strict=True):
        assert read.infos[theirs["image"]] == data.infos[ours["image"]]
    assert ImageInfo("PNG", (12, 12), Decoder.PNG16) in read.infos.values()
