"""Accuracy on Fashion-MNIST where 10 to 50 % of the pixels are missing, with each way to deal with it.

    python benchmarks/missing_data.py [--results FILE] [--json]                  (about 10 minutes on one core)

Missing are single pixels, each by itself, or one square region at a random place. A small net trained on 20,000 whole
images sees 2,000 test images whose gaps are black (the peer of each row) or filled in; imputations learn from training
images only. The same net is also trained on images with gaps, of 0 to 50 % and of both kinds, anew in each epoch:
black; with a channel more that is the mask; and with partial convolutions.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from table import row, show

import kerasvision as kv
from kerasvision.data.imputation import ImageImputer, mask_channel
from kerasvision.layers.partial_convolution import partial_conv

RESULTS = Path(__file__).parent / "results" / "missing_data.json"
TRAIN, TEST = 20_000, 2_000
SIDE = 28
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
EPOCHS = 6
BATCH = 64
# Name -> the imputation, and from how many training images it learns: two take their time by that.
IMPUTERS: dict[str, tuple[dict[str, Any], int]] = {
    "mean": ({"method": "mean"}, TRAIN),
    "median": ({"method": "median"}, TRAIN),
    "nearest": ({"method": "nearest"}, 1000),
    "Bayesian": ({"method": "bayesian"}, 400),
    "inpainting, Telea": ({"method": "inpaint"}, 0),
    "inpainting, Navier-Stokes": ({"method": "inpaint", "algorithm": "navier_stokes"}, 0),
}
# Net -> what it is trained on.
NETS = {"plain": "whole", "black gaps": "gaps", "mask channel": "gaps", "partial": "gaps"}
TRAINED = {"black gaps": "trained on gaps", "mask channel": "mask channel", "partial": "partial convolution"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    images, label = load("train", TRAIN)
    nets = {name: train_net(name, images, label) for name in NETS}
    imputers = {name: ImageImputer(**how).fit(images[:count]) for name, (how, count) in IMPUTERS.items()}
    test, wanted = load("test", TEST)
    measured: dict[str, Any] = {"whole images": accuracy(nets["plain"], "plain", test, None, wanted)}
    for kind in ("pixels", "square"):
        measured[kind] = {}
        for share in SHARES:
            missing = draw_gaps(len(test), share, kind, np.random.default_rng([1, round(100 * share)]))
            measured[kind][f"{share:.0%}"] = compare(nets, imputers, test, missing, wanted)
    result = {
        "images": {"train": TRAIN, "test": TEST, **{name: count for name, (_, count) in IMPUTERS.items() if count}},
        "epochs": EPOCHS,
        "seconds": round(time.perf_counter() - begin),
        "environment": {
            "machine": platform.machine(),
            **{
                name: version(name)
                for name in ("tensorflow", "keras", "scikit-learn", "opencv-contrib-python-headless")
            },
        },
        "accuracy": measured,
    }
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")
    rows = [
        row(f"{kind}, {share} missing: {name}", figure, ways["black"], "share", 1.0, "least")
        for kind in ("pixels", "square")
        for share, ways in measured[kind].items()
        for name, figure in ways.items()
        if name != "black"
    ]
    show(rows, title="Fashion-MNIST with gaps, accuracy", ours="ours", peer="black gaps", as_json=arguments.json)


def load(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 28, 28, 1] and their classes."""
    examples = kv.load_data("fashion_mnist").splits[split][:count]
    images = np.stack([np.asarray(example["image"]).reshape(SIDE, SIDE, 1) for example in examples])
    return images, np.array([example["label"] for example in examples])


def draw_gaps(count: int, share: float | np.ndarray, kind: str, random: np.random.Generator) -> np.ndarray:
    """bool [N, 28, 28]: a share of the pixels, of each image or of all."""
    share = np.broadcast_to(share, count)[:, None, None]
    if kind == "pixels":
        return random.random((count, SIDE, SIDE)) < share
    side = np.rint(SIDE * np.sqrt(share))
    top, left = (np.floor(random.random((count, 1, 1)) * (SIDE - side + 1)) for _ in range(2))
    row_index, column = np.arange(SIDE)[:, None], np.arange(SIDE)
    return (row_index >= top) & (row_index < top + side) & (column >= left) & (column < left + side)


def prepare(name: str, images: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    """What a net of that name takes: gaps are black, and two of the nets see the mask too."""
    missing = np.zeros(images.shape[:3], bool) if missing is None else missing
    masked = mask_channel(images, missing).astype(np.float32) / 255
    return masked if name in ("mask channel", "partial") else masked[..., :1]


def make_net(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 2 if name in ("mask channel", "partial") else 1))
    x, observed = image, None
    if name == "partial":
        x, observed = image[..., :1], image[..., 1:]
    for index, (filters, strides) in enumerate([(16, 1), (32, 2), (64, 2)]):
        if observed is not None:
            x, observed = partial_conv(x, observed, filters, 3, strides, name=f"block{index}", use_bias=False)
        else:
            x = layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10)(layers.Dropout(0.3)(x)))


def train_net(name: str, images: np.ndarray, label: np.ndarray) -> keras.Model:
    net = make_net(name)
    random = np.random.default_rng(0)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * -(-len(images) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(schedule), loss=loss, steps_per_execution=16)
    for _ in range(EPOCHS):
        missing = None
        if NETS[name] == "gaps":
            shares = random.uniform(0, SHARES[-1], len(images))
            kinds = [draw_gaps(len(images), shares, kind, random) for kind in ("pixels", "square")]
            missing = np.where(random.random((len(images), 1, 1)) < 0.5, *kinds)
        net.fit(prepare(name, images, missing), label, batch_size=BATCH, verbose=0)
    return net


def compare(
    nets: dict[str, keras.Model],
    imputers: dict[str, ImageImputer],
    test: np.ndarray,
    missing: np.ndarray,
    wanted: np.ndarray,
) -> dict[str, Any]:
    """Way -> accuracy."""
    found = {"black": accuracy(nets["plain"], "plain", test, missing, wanted)}
    for name, imputer in imputers.items():
        found[name] = accuracy(nets["plain"], "plain", imputer.transform(test, missing), None, wanted)
    return found | {title: accuracy(nets[name], name, test, missing, wanted) for name, title in TRAINED.items()}


def accuracy(net: keras.Model, name: str, images: np.ndarray, missing: np.ndarray | None, wanted: np.ndarray) -> float:
    logits = net.predict(prepare(name, images, missing), batch_size=500, verbose=0)
    return round(float((logits.argmax(axis=1) == wanted).mean()), 4)


if __name__ == "__main__":
    main()
