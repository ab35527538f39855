"""Reading what comes in: indices of 100,000 images, and TFRecord shards beside loose files.

    python benchmarks/sources.py [coco] [voc] [shards] [--images N] [--data FOLDER] [--json]

The COCO and VOC indices are made here, with seven objects for each image; only the listing is measured, not the
decoding of images, which are empty files. Each runs in a process of its own, for its memory. pycocotools reads the
same COCO index, for comparison; it checks nothing. The limits are those that a user would wait for: 20 seconds, 2 GB.

Shards and loose files hold the same photographs (imagenet_sample below KERASVISION_DATA, or --data), are decoded the
same way, and take turns; "cold" after the system was asked to forget the files.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from table import row, show

OBJECTS = 7
CLASSES = 20
SECONDS, GIGABYTES = 20.0, 2.0
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all when none is given")
    parser.add_argument("--images", type=int, default=100_000)
    folder = Path(os.environ.get("KERASVISION_DATA", "."), "imagenet_sample")
    parser.add_argument("--data", type=Path, default=folder, help="folder of photographs for the shards")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # What this script calls itself with.
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in arguments.cases or CASES:
            rows += CASES[case](Path(scratch) / case, arguments.images, arguments.data)
    show(rows, title="What comes in", ours="ours", peer="peer or limit", as_json=arguments.json)


def coco(folder: Path, images: int, data: Path) -> list[dict]:
    """A COCO index with polygons."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    names = [f"{number:012}.jpg" for number in range(images)]
    for name in names:
        (folder / "images" / name).touch()
    boxes = np.round(random.uniform(1, 200, (images * OBJECTS, 4)), 2).tolist()
    index = {
        "images": [{"id": i, "file_name": name, "height": 480, "width": 640} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": i,
                "image_id": i // OBJECTS,
                "category_id": i % CLASSES + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h, x, y + h / 2]],
            }
            for i, (x, y, w, h) in enumerate(boxes)
        ],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(index))
    del index, boxes
    ours, peer = child("coco", file), child("pycocotools", file)
    title = f"COCO, {images:,} images, {file.stat().st_size / 1e6:.0f} MB"
    return [*limits(title, ours), row(f"{title} / pycocotools", ours["seconds"], peer["seconds"], "s", 1.0, "most")]


def voc(folder: Path, images: int, data: Path) -> list[dict]:
    """A folder of VOC's XML files."""
    random = np.random.default_rng(0)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    corners = random.integers(1, 200, (images, OBJECTS, 2))
    boxes = np.concatenate([corners, corners + random.integers(5, 200, corners.shape)], axis=-1).tolist()
    for number, objects in enumerate(boxes):
        text = "".join(
            f"<object><name>class {i}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for i, (x0, y0, x1, y1) in enumerate(objects)
        )
        head = (
            f"<filename>{number:06}.jpg</filename><size><width>640</width><height>480</height><depth>3</depth></size>"
        )
        (folder / "Annotations" / f"{number:06}.xml").write_text(f"<annotation>{head}{text}</annotation>")
        (folder / "JPEGImages" / f"{number:06}.jpg").touch()
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{number:06}\n" for number in range(images)))
    return limits(f"VOC, {images:,} images", child("voc", folder))


def limits(title: str, ours: dict[str, float]) -> list[dict]:
    """Time and memory beside what one would put up with."""
    return [
        row(f"{title}, time", ours["seconds"], SECONDS, "s", 1.0, "most"),
        row(f"{title}, memory", ours["gigabytes"], GIGABYTES, "GB", 1.0, "most"),
    ]


def child(kind: str, path: Path) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--measure", kind, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(kind: str, path: str) -> None:
    """Read an index once, and print its time and all memory of the process."""
    if kind == "pycocotools":
        from pycocotools.coco import COCO

        read: Callable[[str], Any] = COCO
    else:
        from kerasvision.data.coco import load_coco
        from kerasvision.data.voc import load_voc

        loaders = {"coco": load_coco, "voc": load_voc}
        read = lambda name: loaders[kind](Path(name))  # noqa: E731
    start = time.perf_counter()
    found = read(path)
    seconds = time.perf_counter() - start
    if kind != "pycocotools":
        assert not found.problems and len(next(iter(found.splits.values()))) > 0
    print(json.dumps({"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))


def shards(folder: Path, images: int, data: Path) -> list[dict]:
    """The same photographs as files and as shards, decoded to 64 x 64."""
    from kerasvision.data import Data, load_data
    from kerasvision.data.shards import write_shards

    files = sorted(str(file) for file in data.iterdir() if file.suffix.lower() in (".jpg", ".jpeg"))
    loose = Data(labels=("a", "b"), splits={"train": [{"image": file, "label": i % 2} for i, file in enumerate(files)]})
    write_shards(loose, folder, shard_mb=8.0)
    stored = load_data(folder, validation_fraction=0)
    sets = {"ours": (stored, sorted(map(str, folder.glob("*.tfrecord*")))), "peer": (loose, files)}
    rows = []
    for state in ("warm", "cold"):
        speeds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS):
            for name, (each, paths) in sets.items():
                dataset = each.batches("train", image_size=(64, 64), cache=False, shuffle=True)
                if state == "cold":
                    forget(paths)
                start = time.perf_counter()
                count = sum(len(batch) for batch, _ in dataset)
                speeds[name].append(count / (time.perf_counter() - start))
        ratio = float(np.median(np.array(speeds["ours"]) / np.array(speeds["peer"])))
        ours, peer = (float(np.median(speeds[name])) for name in ("ours", "peer"))
        rows.append(row(f"shards / loose files, {state}", ours, peer, "images/s", 1.0, "least", ratio=ratio))
    return rows


def forget(paths: list[str]) -> None:
    """Ask the system to drop files from its cache, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


CASES: dict[str, Callable[[Path, int, Path], list[dict]]] = {"coco": coco, "voc": voc, "shards": shards}


if __name__ == "__main__":
    main()
