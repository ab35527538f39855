"""What each remedy for classes of unequal size does to the rare class: solar cells, sound or defective.

    python benchmarks/imbalance.py [--seeds 3] [--results FILE] [--json]        (about 10 minutes on two cores)

Every remedy trains the same small head for as many steps, on the same features of EfficientNet-Lite0 with ImageNet
weights at 224 pixels (one pass over the training images for each of four flips), and is judged on the 524 test
photographs of elpv, whose modules the training has not seen. Recall is that of the defective cells at a score of 0.5,
specificity that of the sound ones. "natural" has the training images as they are; in "1:20" defective ones are left
out, others for each seed, until there is one for 20 sound ones. The peer of each row is plain training.

Needs: pip install "kerasvision[imagenet-lite,datasets,balance]".
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.metrics import roc_auc_score
from table import row, show

import kerasvision as kv
from kerasvision.classification import ClassificationTask
from kerasvision.classification.losses import DeferredReweighting
from kerasvision.data.balance import class_weights, resample, sampler
from kerasvision.task import TaskModel
from kerasvision.training.transfer import compute_features, split_model

RESULTS = Path(__file__).parent / "results" / "imbalance.json"
SIZE = (224, 224)
LABELS = ("functional", "defective")
RARE = 1
SOUND_TO_RARE = 20
BATCH = 64
EPOCHS = 20  # Equal shares of the steps, for the schedule of the deferred weights.
STEPS = 30
LEARNING_RATE = 1e-3
FIGURES = ("recall", "specificity", "auc")
# Recall should not fall below plain training's, and AUC not by more than this share.
LARGEST_LOSS = 0.03
# Name -> how images are drawn, weighed or replaced, and the loss.
REMEDIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "over-sampling": {"sampling": "over"},
    "under-sampling": {"sampling": "under"},
    "class-balanced sampling": {"sampling": "balanced"},
    "square-root sampling": {"sampling": "square_root"},
    "class weights": {"weights": "balanced"},
    "effective-number weights": {"weights": "effective_number"},
    "cost-sensitive, 10 for a missed defect": {"weights": {"defective": 10.0}},
    "SMOTE": {"resampling": "smote"},
    "Tomek links": {"resampling": "tomek"},
    "SMOTE + Tomek links": {"resampling": "smote_tomek"},
    "focal loss": {"loss": "focal"},
    "class-balanced loss": {"loss": "class_balanced"},
    "LDAM loss": {"loss": "ldam"},
    "LDAM loss, deferred weights": {"loss": "ldam", "deferred": True},
}

Passes = list[np.ndarray]  # For each flip: features [N, D].


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    passes, label, test, wanted = embed()
    measured: dict[str, Any] = {}
    for setting, keep in {"natural": keep_all, "1:20": keep_few}.items():
        for name, remedy in REMEDIES.items():
            begin = time.perf_counter()
            figures = []
            for seed in range(arguments.seeds):
                kept = keep(label, np.random.default_rng(seed))
                scores = train_head([part[kept] for part in passes], label[kept], test, seed=seed, **remedy)
                figures.append(judge(wanted, scores))
            seconds = (time.perf_counter() - begin) / arguments.seeds
            measured.setdefault(setting, {})[name] = {**summarize(figures), "seconds": round(seconds, 2)}
    arguments.results.write_text(json.dumps(report(measured, label, wanted, arguments.seeds), indent=1) + "\n")
    show(rows_of(measured), title="elpv, 524 test photographs", ours="remedy", peer="plain", as_json=arguments.json)


def embed() -> tuple[Passes, np.ndarray, np.ndarray, np.ndarray]:
    """Standardized features of the training images, their labels, and features and labels of the test images."""
    data = kv.load_data("elpv")
    model = kv.create_model("efficientnet_lite0", weights="imagenet", labels=LABELS, input_shape=(*SIZE, 3))
    backbone, _ = split_model(model)

    def features(split: str, flips: tuple[int, ...]) -> np.ndarray:
        batches = data.batches(split, image_size=SIZE, preprocessing=model.preprocessing)
        flipped = batches.map(lambda images, targets: (tf.reverse(images, flips), targets))
        return compute_features(backbone, [flipped], f"Features of {split}")[0]

    passes = [features("train", flips) for flips in ((), (1,), (2,), (1, 2))]
    mean, deviation = passes[0].mean(axis=0), passes[0].std(axis=0) + 1e-6
    test = (features("test", ()) - mean) / deviation
    targets = [data.targets(split)["label"] for split in ("train", "test")]
    return [(part - mean) / deviation for part in passes], targets[0], test, targets[1]


def keep_all(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.arange(len(label))


def keep_few(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Indices of all sound cells, and of one defective cell for 20 of them."""
    rare = np.flatnonzero(label == RARE)
    count = np.count_nonzero(label != RARE) // SOUND_TO_RARE
    return np.sort(np.concatenate([np.flatnonzero(label != RARE), random.choice(rare, count, replace=False)]))


def train_head(
    passes: Passes,
    label: np.ndarray,
    test: np.ndarray,
    *,
    seed: int,
    sampling: str | None = None,
    weights: Any = None,
    resampling: Any = None,
    loss: Any = "crossentropy",
    deferred: bool = False,
) -> np.ndarray:
    """Scores of the test images, [N, 2], from a head trained with one remedy."""
    keras.utils.set_random_seed(seed)
    of_pass = [label] * len(passes)
    if resampling:
        # Each flip by itself: together, the nearest neighbours of an image would be its own flips.
        found = [resample(part, label, method=resampling, seed=seed) for part in passes]
        passes, of_pass = [part for part, _ in found], [part for _, part in found]
    weight = class_weights(label, LABELS, weights) if weights else np.ones(len(LABELS), np.float32)

    def draw(index: int, epoch: int) -> np.ndarray:
        if sampling:
            return sampler(of_pass[index], sampling, seed=seed, epoch=epoch)
        return np.random.default_rng([seed, epoch]).permutation(len(of_pass[index]))

    images, targets = stream(passes, of_pass, draw)
    counts = np.bincount(label) if loss in ("class_balanced", "ldam") else None
    model = make_head(passes[0].shape[1], ClassificationTask(labels=LABELS, loss=loss, class_counts=counts))
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * STEPS)
    model.compile(keras.optimizers.Adam(schedule), steps_per_execution=STEPS)
    shape = (EPOCHS * STEPS, BATCH)
    steps = (images.reshape(*shape, -1), {"label": targets.reshape(shape)}, weight[targets].reshape(shape))
    dataset = tf.data.Dataset.from_tensor_slices(steps)
    callbacks = [DeferredReweighting(round(0.8 * EPOCHS))] if deferred else []
    model.fit(dataset, epochs=EPOCHS, steps_per_epoch=STEPS, callbacks=callbacks, verbose=0)
    return model.task.decode(model(test))["scores"].numpy()


def stream(
    passes: Passes, of_pass: list[np.ndarray], draw: Callable[[int, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of every step of a training, one flip after the other."""
    images, targets, count, epoch = [], [], 0, 0
    while count < BATCH * STEPS * EPOCHS:
        index = epoch % len(passes)
        order = draw(index, epoch)
        images.append(passes[index][order])
        targets.append(of_pass[index][order])
        count, epoch = count + len(order), epoch + 1
    whole = BATCH * STEPS * EPOCHS
    return np.concatenate(images)[:whole], np.concatenate(targets)[:whole]


def make_head(size: int, task: ClassificationTask) -> TaskModel:
    """Features [B, size] -> logits [B, 2], through one hidden layer."""
    features = keras.Input((size,))
    hidden = layers.Dropout(0.5)(layers.Dense(128, activation="relu")(features))
    build = {"name": "head", "arguments": {}}
    return TaskModel(
        features, {"logits": layers.Dense(2)(hidden)}, task=task, preprocessing=kv.Preprocessing(), build=build
    )


def judge(wanted: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    found = scores[:, RARE] > 0.5
    return {
        "recall": float(found[wanted == RARE].mean()),
        "specificity": float(1 - found[wanted != RARE].mean()),
        "auc": float(roc_auc_score(wanted == RARE, scores[:, RARE])),
    }


def summarize(figures: list[dict[str, float]]) -> dict[str, Any]:
    """Name -> {"mean", "sd"} over the seeds."""
    values = {name: np.array([entry[name] for entry in figures]) for name in FIGURES}
    return {
        name: {"mean": round(float(each.mean()), 4), "sd": round(float(each.std(ddof=min(1, len(each) - 1))), 4)}
        for name, each in values.items()
    }


def report(measured: dict[str, Any], label: np.ndarray, wanted: np.ndarray, seeds: int) -> dict[str, Any]:
    return {
        "images": {"train": np.bincount(label).tolist(), "test": np.bincount(wanted).tolist()},
        "seeds": seeds,
        "steps": STEPS * EPOCHS,
        "batch_size": BATCH,
        "environment": {
            "machine": platform.machine(),
            **{name: version(name) for name in ("tensorflow", "keras", "imbalanced-learn", "scikit-learn")},
        },
        "measured": measured,
    }


def rows_of(measured: dict[str, Any]) -> list[dict]:
    """Recall and AUC of each remedy beside those of plain training."""
    rows = []
    for setting, remedies in measured.items():
        plain = remedies["plain"]
        for name, figures in remedies.items():
            for figure, bound in (("recall", 1.0), ("auc", 1 - LARGEST_LOSS)):
                if name != "plain":
                    case = f"{setting} {name}: {figure} (sd {figures[figure]['sd']:.3f})"
                    ours, peer = figures[figure]["mean"], plain[figure]["mean"]
                    rows.append({**row(case, ours, peer, "share", bound, "least"), "sd": figures[figure]["sd"]})
    return rows


if __name__ == "__main__":
    main()
