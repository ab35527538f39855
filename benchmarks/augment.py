"""Input pipelines beside albumentations and Keras's layers: images a second, from files to batches, in one run.

    python benchmarks/augment.py [--data FOLDER] [--seconds S] [--rounds N] [--only WORD] [--json]

The photographs are those of imagenet_sample (KERASVISION_DATA), or any folder of images. Every pipeline of a case runs
over the same files on all cores, and they take turns, so that what else the machine does falls on all alike; a ratio
is the median over the rounds. albumentations has a thread for every core, with OpenCV's own threads off, and the same
operations with the same ranges. Peers that are not installed are left out.

    pip install albumentations
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import cv2
import keras
import numpy as np
import tensorflow as tf
from table import row, show

from kerasvision.augment import RandAugment
from kerasvision.data import Data
from kerasvision.masks import encode_mask

CORES = os.cpu_count() or 1
SIZE = (224, 224)
DETECTION = (640, 640)
BATCH = 32
OBJECTS = 20

Steps = Callable[[], Iterator[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("KERASVISION_DATA", "."), "imagenet_sample")
    parser.add_argument("--data", type=Path, default=folder, help="folder of photographs")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pipeline in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted(str(path) for path in arguments.data.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        parser.error(f"no photographs in {arguments.data}: set KERASVISION_DATA or give --data")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, case in CASES.items():
            if arguments.only in name:
                rows += case(name, files, arguments.seconds, arguments.rounds, Path(scratch))
    show(rows, title="Input pipelines, images a second", ours="ours", peer="peer", as_json=arguments.json)


def race(pipelines: dict[str, Steps], seconds: float, rounds: int) -> dict[str, np.ndarray]:
    """Images a second of each pipeline [rounds]; a step says how many images it made."""
    running = {name: make() for name, make in pipelines.items()}
    for steps in running.values():
        for _ in range(3):
            next(steps)
    speeds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, steps in running.items():
            images, start = next(steps) * 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                images += next(steps)
            speeds[name].append(images / (time.perf_counter() - start))
    return {name: np.array(values) for name, values in speeds.items()}


def compare(case: str, speeds: dict[str, np.ndarray], bounds: dict[str, float]) -> list[dict]:
    """Ours against each peer."""
    ours = speeds["ours"]
    return [
        row(
            f"{case} / {peer}",
            float(np.median(ours)),
            float(np.median(speeds[peer])),
            "images/s",
            bound,
            "least",
            ratio=float(np.median(ours / speeds[peer])),
        )
        for peer, bound in bounds.items()
        if peer in speeds
    ]


def batches_of(dataset: tf.data.Dataset) -> Steps:
    """A tf.data set of batches, again and again."""

    def steps() -> Iterator[int]:
        for images, *_ in dataset.repeat():
            yield len(images)

    return steps


def threads_of(make: Callable[[Any], Any], items: list[Any]) -> Steps:
    """A function on single items, by a thread for every core, in batches."""

    def steps() -> Iterator[int]:
        with ThreadPoolExecutor(CORES) as pool:
            endless = itertools.cycle(items)
            waiting: list[Any] = []
            while True:
                # As many in work as a prefetching loader would have.
                while len(waiting) < 2 * BATCH:
                    waiting.append(pool.submit(make, next(endless)))
                np.stack([future.result() for future in waiting[:BATCH]])
                del waiting[:BATCH]
                yield BATCH

    return steps


def albumentations() -> Any:
    """The package, None where it is not installed."""
    try:
        import albumentations as package
    except ImportError:
        return None
    return package


def read(file: str) -> np.ndarray:
    """uint8 [H, W, 3], as users of albumentations read it."""
    return cv2.imread(file, cv2.IMREAD_COLOR_RGB)


def labelled(files: list[str]) -> Data:
    """Every photograph with a label."""
    return Data(labels=("a", "b"), splits={"train": [{"image": file, "label": i % 2} for i, file in enumerate(files)]})


def decoding(files: list[str]) -> tf.data.Dataset:
    """JPEG decoding and nothing else; batches are counted, not stacked, since the sizes differ."""
    contents = tf.data.Dataset.from_tensor_slices(files).map(tf.io.read_file)
    decoded = contents.map(
        lambda content: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return decoded.prefetch(tf.data.AUTOTUNE)


def singles_of(dataset: tf.data.Dataset) -> Steps:
    """A tf.data set of single images, counted by the batch."""

    def steps() -> Iterator[int]:
        for count, _ in enumerate(dataset.repeat(), start=1):
            if count % BATCH == 0:
                yield BATCH

    return steps


def random_resized_crop(name: str, files: list[str], seconds: float, rounds: int, scratch: Path) -> list[dict]:
    """Crop, flip and colour jitter, from files."""
    transforms = [
        {"name": "resized_crop", "scale": [0.08, 1.0]},
        "flip",
        {"name": "color", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    ]
    options = {"image_size": SIZE, "batch_size": BATCH, "cache": False}
    pipelines = {"ours": batches_of(labelled(files).batches("train", augment=transforms, **options))}
    pipelines["decoding alone"] = singles_of(decoding(files))
    if package := albumentations():
        chain = package.Compose(
            [
                package.RandomResizedCrop(size=SIZE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
                package.HorizontalFlip(p=0.5),
                package.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=1.0),
            ]
        )
        pipelines["albumentations"] = threads_of(lambda file: chain(image=read(file))["image"], files)
    return compare(name, race(pipelines, seconds, rounds), {"decoding alone": 0.75, "albumentations": 1.0})


def rand_augment(name: str, files: list[str], seconds: float, rounds: int, scratch: Path) -> list[dict]:
    """Two operations at magnitude 9 of 30, on images of 224 x 224 that are in memory."""
    images = [cv2.resize(read(file), SIZE[::-1], interpolation=cv2.INTER_AREA) for file in files[:256]]
    examples = [{"image": image, "label": 0} for image in images]
    data = Data(labels=("a", "b"), splits={"train": examples})
    dataset = data.batches("train", image_size=SIZE, batch_size=BATCH, augment=["rand_augment"])
    layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=9 / 30)
    raw = tf.data.Dataset.from_tensor_slices(np.stack(images))
    # A layer in `map`, which is how Keras's guide uses it.
    mapped = raw.map(lambda image: layer(tf.cast(image, tf.float32)), num_parallel_calls=tf.data.AUTOTUNE)
    pipelines = {
        "ours": batches_of(dataset),
        "keras.layers.RandAugment": batches_of(mapped.batch(BATCH).map(lambda image: (image,))),
    }
    if package := albumentations():
        chain = package.Compose([package.SomeOf(same_operations(package), n=2, replace=True, p=1.0)])
        pipelines["albumentations"] = threads_of(lambda image: chain(image=image)["image"], images)
    return compare(name, race(pipelines, seconds, rounds), {"keras.layers.RandAugment": 25.0, "albumentations": 1.0})


def same_operations(package: Any) -> list[Any]:
    """RandAugment's fourteen in albumentations, as strong as at magnitude 9 of 30."""
    share = 9 / 30
    assert len(RandAugment().kinds) == 14
    factor = (1 + 0.9 * share, 1 + 0.9 * share)
    shift, shear, turn = 0.45 * share, np.degrees(np.arctan(0.3 * share)), 30 * share
    always = {"p": 1.0}
    return [
        package.NoOp(**always),
        package.AutoContrast(**always),
        package.Equalize(**always),
        package.Rotate(limit=(turn, turn), **always),
        package.Solarize(threshold_range=(1 - share, 1 - share), **always),
        package.ColorJitter(0, 0, saturation=factor, hue=0, **always),
        package.Posterize(num_bits=round(8 - 4 * share), **always),
        package.ColorJitter(0, contrast=factor, saturation=0, hue=0, **always),
        package.ColorJitter(brightness=factor, contrast=0, saturation=0, hue=0, **always),
        package.Sharpen(alpha=(0.9 * share, 0.9 * share), **always),
        package.Affine(shear={"x": (shear, shear), "y": 0}, **always),
        package.Affine(shear={"x": 0, "y": (shear, shear)}, **always),
        package.Affine(translate_percent={"x": (shift, shift), "y": 0}, **always),
        package.Affine(translate_percent={"x": 0, "y": (shift, shift)}, **always),
    ]


def mosaic(name: str, files: list[str], seconds: float, rounds: int, scratch: Path, masks: bool = False) -> list[dict]:
    """Mosaic, affine and colour at 640 x 640 with boxes, on images that are in memory."""
    rng = np.random.default_rng(0)
    images = [cv2.resize(read(file), DETECTION[::-1]) for file in files[:48]]
    examples = [_with_objects(image, rng, masks) for image in images]
    data = Data(labels=("a", "b", "c"), splits={"train": examples})
    transforms = [
        "mosaic",
        {"name": "affine", "degrees": 10.0, "scale": [0.8, 1.25], "translate": 0.1, "shear": 5.0, "fill": 114},
        {"name": "color", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02},
    ]
    options = {"image_size": DETECTION, "batch_size": 8}
    dataset = data.batches("train", augment=transforms, mask_stride=4 if masks else 1, **options)
    pipelines = {"ours": batches_of(dataset)}
    if package := albumentations():
        pipelines["albumentations"] = threads_of(_peer_mosaic(package, examples, masks), list(range(len(examples))))
    return compare(name, race(pipelines, seconds, rounds), {"albumentations": 1.0})


def _with_objects(image: np.ndarray, rng: np.random.Generator, masks: bool) -> dict[str, Any]:
    height, width = image.shape[:2]
    corners = rng.random((OBJECTS, 2)) * (width - 100, height - 100)
    boxes = np.concatenate([corners, corners + rng.uniform(20, 100, (OBJECTS, 2))], axis=-1).astype(np.float32)
    example = {
        "image": image,
        "boxes": boxes,
        "classes": rng.integers(0, 3, OBJECTS).astype(np.int32),
        "crowd": np.zeros(OBJECTS, bool),
    }
    if masks:
        example["masks"] = [encode_mask(_ellipse(box, (height, width))) for box in boxes]
    return example


def _ellipse(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    center, axes = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return cv2.ellipse(mask, center.astype(int).tolist(), axes.astype(int).tolist(), 0, 0, 360, 1, -1)


def _peer_mosaic(package: Any, examples: list[dict[str, Any]], masks: bool) -> Callable[[int], np.ndarray]:
    from kerasvision.masks import decode_masks

    boxes = package.BboxParams(format="pascal_voc", label_fields=["classes"], min_visibility=0.1)
    chain = package.Compose(
        [
            package.Mosaic(target_size=DETECTION, cell_shape=DETECTION, metadata_key="others", p=1.0),
            package.Affine(
                rotate=(-10, 10),
                scale=(0.8, 1.25),
                translate_percent=(-0.1, 0.1),
                shear={"x": (-5, 5), "y": 0},
                fill=114,
                p=1.0,
            ),
            package.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=1.0),
        ],
        bbox_params=boxes,
    )
    rng = np.random.default_rng(0)

    def loaded(index: int) -> dict[str, Any]:
        example = examples[index]
        found = {"image": example["image"], "bboxes": example["boxes"], "classes": example["classes"]}
        if masks:
            # Its mosaic takes one array with a channel for each instance.
            found["mask"] = np.ascontiguousarray(decode_masks(example["masks"], DETECTION).transpose(1, 2, 0))
        return found

    def make(index: int) -> np.ndarray:
        others = []
        for other in rng.integers(len(examples), size=3):
            others.append(loaded(int(other)))
        return chain(**loaded(index), others=others)["image"]

    return make


def sources(name: str, files: list[str], seconds: float, rounds: int, scratch: Path) -> list[dict]:
    """Indices of 100,000 images, and shards beside loose files: see sources.py."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("sources.py")),
        "--data",
        str(Path(files[0]).parent),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout[done.stdout.index("{") :])["rows"]


def memory(name: str, files: list[str], seconds: float, rounds: int, scratch: Path) -> list[dict]:
    """Memory of the process after 3 and after 20 epochs, MB."""
    transforms = ["resized_crop", "flip", "rand_augment"]
    dataset = labelled(files).batches("train", augment=transforms, image_size=(96, 96), cache=False, shuffle=True)

    def epochs(count: int) -> float:
        for _ in range(count):
            for _ in dataset:
                pass
        return _resident()

    first = epochs(3)
    return [row(name, epochs(17), first, "MB", 1.05, "most")]


def _resident() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


CASES: dict[str, Callable[..., list[dict]]] = {
    "rand_augment": rand_augment,
    "resized_crop": random_resized_crop,
    "mosaic with boxes": mosaic,
    "mosaic with masks": lambda *arguments: mosaic(*arguments, masks=True),
    "sources": sources,
    "memory over 20 epochs": memory,
}


if __name__ == "__main__":
    main()
