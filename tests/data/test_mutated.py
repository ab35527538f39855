"""Damaged data sets, made by the thousand from a seed: refused, listed as bad, or read, and nothing else happens."""

import io
import json
import random
import shutil
import time
import warnings

import fsspec
import numpy as np
import pytest
from PIL import Image

from kerasvision.data import load_data
from kerasvision.errors import DataError

SQUARE = [[2.0, 2.0, 12.0, 2.0, 12.0, 9.0, 2.0, 9.0]]
SECONDS = 5.0


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def images(rng):
    return [png(rng.integers(0, 255, (20, 30, 3), np.uint8)) for _ in range(2)]


def coco(rng):
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": 30, "height": 20} for number, name in enumerate("ab")
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 2, 10, 7], "segmentation": SQUARE, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 5], "segmentation": SQUARE, "iscrowd": 1},
            {
                "id": 3,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, 0, 30, 20],
                "segmentation": {"size": [20, 30], "counts": [300, 300]},
                "keypoints": [1, 2, 2],
            },
        ],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["nose"]}, {"id": 2, "name": "dog"}],
    }
    first, second = images(rng)
    return {"train.json": json.dumps(content).encode(), "a.png": first, "b.png": second}, "train.json"


def voc(rng):
    first, second = images(rng)
    page = (
        b'<?xml version="1.0"?>\n<annotation><filename>a.png</filename>'
        b"<size><width>30</width><height>20</height></size>"
        b"<object><name>cat</name><difficult>1</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax>"
        b"<ymax>12</ymax></bndbox></object></annotation>"
    )
    return {
        "Annotations/a.xml": page,
        "Annotations/b.xml": page.replace(b"cat", b"dog"),
        "ImageSets/Main/train.txt": b"a\nb\n",
        "JPEGImages/a.png": first,
        "JPEGImages/b.png": second,
    }, "voc"


def yolo(rng):
    first, second = images(rng)
    return {
        "data.yaml": b"path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n",
        "labels/train/a.txt": b"0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.5 0.5\n",
        "labels/train/c.txt": b"0 0.5 0.5 0.2 0.2\n",
        "labels/val/b.txt": b"0 0.5 0.5 0.2 0.2\n",
        "images/train/c.png": second,
        "images/train/a.png": first,
        "images/val/b.png": second,
    }, "data.yaml"


def masks(rng):
    first, second = images(rng)
    mask = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    return {
        "labels.txt": b"sky\nroad\ntree\n",
        "images/a.png": first,
        "images/b.png": second,
        "masks/a.png": png(mask),
        "masks/b.png": png(mask),
    }, "masks"


def colors(rng):
    first, second = images(rng)
    mask = np.array([[0, 0, 0], [9, 9, 9], [255, 0, 0]], np.uint8)[rng.integers(0, 3, (20, 30))]
    return {
        "class_dict.csv": b"name,r,g,b\nsky,0,0,0\nroad,9,9,9\ntree,255,0,0\n",
        "images/a.png": first,
        "images/b.png": second,
        "masks/a.png": png(mask),
        "masks/b.png": png(mask),
    }, "masks"


def table(rng):
    first, second = images(rng)
    text = 'path,label,split,group\na.png,"cat, big",train,1\nb.png,dog,train,2\n'
    return {"labels.csv": text.encode(), "a.png": first, "b.png": second}, "labels.csv"


def one_hot(rng):
    first, second = images(rng)
    return {
        "labels.csv": "path,cat,dog\na.png,1,0\nb.png,0,1\n".encode("utf-16"),
        "a.png": first,
        "b.png": second,
    }, "labels.csv"


KINDS = (coco, voc, yolo, masks, colors, table, one_hot)


def truncate(content, other, draw):
    return content[: draw.randrange(len(content) + 1)]


def flip_bits(content, other, draw):
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 32))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def zeros(content, other, draw):
    start = draw.randrange(len(content))
    end = start + draw.choice((1, 4, 64))
    return content[:start] + bytes(min(end, len(content)) - start) + content[end:]


def splice(content, other, draw):
    return content[: draw.randrange(len(content))] + other[draw.randrange(len(other)) :]


def replace_whole(content, other, draw):
    """What stands under the name of another file."""
    return other


def huge_header(content, other, draw):
    """A PNG that claims to be enormous, or numbers too long for anything."""
    if content.startswith(b"\x89PNG"):
        return content[:16] + draw.randbytes(8) + content[24:]
    digits = [index for index, byte in enumerate(content) if 48 <= byte <= 57] or [0]
    at = draw.choice(digits)
    return (
        content[:at]
        + draw.choice((b"9" * 400, b"1e999", b"-1", b"NaN", b"1e-400", b"0x10", b"9" * 5000))
        + content[at + 1 :]
    )


def repeat(content, other, draw):
    start = draw.randrange(len(content))
    end = start + draw.randrange(1, 40)
    return content[:end] + content[start:end] * draw.choice((1, 3, 500)) + content[end:]


def insert(content, other, draw):
    at = draw.randrange(len(content) + 1)
    pieces = (
        b"../" * 9,
        b"[" * 3000,
        b"<!DOCTYPE a>",
        b'"',
        b"\xff\xfe",
        b"\n\n",
        b"&amp;",
        b"<a>" * 900,
        b"null",
        b"\r",
        b"{}",
        b": ",
    )
    return content[:at] + draw.choice(pieces) + content[at:]


MUTATIONS = (truncate, flip_bits, zeros, splice, replace_whole, huge_header, repeat, insert)


def check(data):
    """A set that was read is one that can be trained on."""
    for examples in data.splits.values():
        for example in examples:
            height, width = data.infos[example["image"]].upright_size
            if "boxes" in example:
                boxes = example["boxes"]
                assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= [width, height] * 2).all()
                assert (boxes[:, 2:] > boxes[:, :2]).all()
                assert set(example["classes"]) <= set(range(len(data.labels)))
                assert len(boxes) == len(example["classes"]) == len(example["crowd"])


def run(root, seed):
    """One damaged set; returns what became of it."""
    draw = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    files, source = kind(np.random.default_rng(seed))
    name = draw.choice(sorted(files))
    # Most damage goes where a parser is.
    if name.endswith(".png") and "masks" not in name and draw.random() < 0.7:
        name = draw.choice([other for other in sorted(files) if not other.endswith(".png") or "masks" in other])
    mutation = draw.choice(MUTATIONS)
    files[name] = mutation(files[name], draw.choice([*files.values()]), draw)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    place = root / source if (root / source).is_file() else root
    data_format = (
        None
        if draw.random() < 0.2
        else {coco: "coco", voc: "voc", yolo: "yolo", masks: "masks", colors: "masks"}.get(kind, "csv")
    )
    start = time.perf_counter()
    try:
        data = load_data(place, data_format, on_bad_files=draw.choice(("skip", "skip", "stop")), validation_fraction=0)
    except DataError as error:
        assert str(root) in str(error)
        return "refused"
    finally:
        assert time.perf_counter() - start < SECONDS, f"{kind.__name__} {mutation.__name__}"
    check(data)
    for bad in data.skipped:
        assert bad.path and bad.reason
    return "listed" if data.skipped else "read"


def run_all(tmp_path, seeds):
    counts = dict.fromkeys(("refused", "listed", "read"), 0)
    for seed in seeds:
        root = tmp_path / "set"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                counts[run(root, seed)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        shutil.rmtree(root)
    return counts


def test_some_damaged_sets(tmp_path):
    counts = run_all(tmp_path, range(300))
    # Damage is found, and it does not take everything with it.
    assert min(counts.values()) > 20, counts


@pytest.mark.slow
def test_many_damaged_sets(tmp_path):
    start = time.perf_counter()
    counts = run_all(tmp_path, range(300, 2_000))
    assert min(counts.values()) > 100, counts
    assert time.perf_counter() - start < 300


@pytest.mark.parametrize("kind", KINDS)
def test_sound_sets_are_read_wherever_they_lie(tmp_path, kind):
    """The undamaged sets, from a folder and from a file system that is none."""
    files, source = kind(np.random.default_rng(0))
    remote = fsspec.filesystem("memory")
    place = f"/{tmp_path.name}/{kind.__name__}"
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
        remote.pipe(f"{place}/{path}", content)
    below = f"/{source}" if source in files else ""
    local = load_data(f"{tmp_path}{below}", validation_fraction=0)
    check(local)
    distant = load_data(f"memory:/{place}{below}", validation_fraction=0)
    assert not local.skipped and not distant.skipped and local.labels == distant.labels
    for split, examples in local.splits.items():
        assert [example["key"] for example in examples] == [example["key"] for example in distant.splits[split]]
        for example, other in zip(examples, distant.splits[split], strict=True):
            assert example["image"].replace(str(tmp_path), f"memory:/{place}") == other["image"]
            assert example.keys() == other.keys()
            np.testing.assert_array_equal(example.get("boxes"), other.get("boxes"))
