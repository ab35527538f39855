"""What a training step costs: `TaskModel.fit` beside a bare `keras.Model.fit` of the same graph.

    python benchmarks/train_step.py [--json] [--steps 200]

The peer has the same layers, optimizer and data, a Keras loss and a Keras metric. The two trainings run in one process
and take turns after every step, so that what else the machine does falls on both alike: a figure is the median over the
steps, the ratio the median over the pairs of steps.
"""

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from table import row, show
from turns import train_in_turns

import kerasvision as kv

CLASSES = 10
LARGEST_RATIO = 1.03
# name, (height, width, channels), images in a step: small ones, in which what is not the net's own work weighs most.
CASES = (
    ("small_cnn", (32, 32, 3), 32),
    ("mobilenet_v2", (96, 96, 3), 4),
    ("resnet18", (64, 64, 3), 4),
)
BATCHES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--steps", type=int, default=200, help="of each model")
    arguments = parser.parse_args()
    rows = []
    for name, shape, batch in CASES:
        ours, peer = step_times(name, shape, batch, arguments.steps)
        rows.append(
            row(
                f"{name} {shape[0]}x{shape[1]}, batch {batch}",
                float(np.median(ours)),
                float(np.median(peer)),
                "ms/step",
                LARGEST_RATIO,
                "most",
                ratio=float(np.median(ours / peer)),
            )
        )
    show(rows, title="Training step", ours="TaskModel", peer="keras.Model", as_json=arguments.json)


def step_times(name: str, shape: tuple[int, int, int], batch: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each step [steps], of TaskModel and of keras.Model."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (BATCHES * batch, *shape)).astype(np.float32)
    labels = random.integers(0, CLASSES, BATCHES * batch)
    ours = kv.create_model(name, num_classes=CLASSES, input_shape=shape)
    ours.compile("adam")
    twin = kv.create_model(name, num_classes=CLASSES, input_shape=shape)
    peer = keras.Model(twin.input, twin.output["logits"])
    peer.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    def batches(targets: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((images, targets)).batch(batch).cache().repeat()

    measured = train_in_turns([(ours, batches({"label": labels})), (peer, batches(labels))], steps)
    return measured[0], measured[1]


if __name__ == "__main__":
    main()
