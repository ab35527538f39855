"""What covered objects cost a detector, and what random erasing, copy-paste and soft suppression do about it.

    python benchmarks/occlusion.py [--out FOLDER] [--seeds 1] [--json]         (about 6 minutes a training on two cores)

RetinaNet on EfficientNet-Lite0 as in pipelines/bccd_retinanet.py learns to find blood cells three times, with the same
seed, schedule and flips, moves and colours: with nothing else; with ten random rectangles of the image's mean colour,
each drawn by a chance of one half; and with cells of another photograph pasted in, rectangles, as the set has no
masks. What lies below P3 keeps its weights of ImageNet. The last epoch counts, not the best one.

Each is judged on the 87 validation photographs, as they are and covered (`cover.py`): of each cell a rectangle of 20
to 60 % of its box is hidden behind a part of the same photograph that shows as little of other cells as there is. The
boxes to be found stay those of the whole cells. The net sees each photograph once; its outputs are decoded with every
suppression. The peer of each row is the first training with hard suppression at an overlap of 0.5.

Trainings are run folders in --out: an interrupted one goes on where it was, a finished one is not repeated.

Needs: KERASVISION_DATA/bccd, pip install "kerasvision[imagenet-lite]".
"""

import argparse
import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from cover import SHARE, cover_objects, extents_of, hidden_shares
from table import row, show

import kerasvision as kv
from kerasvision.data import Data
from kerasvision.data.decode import read_image
from kerasvision.detection import DetectionMetrics
from kerasvision.recipe import ExportRecipe, QuantizeRecipe, Recipe, load_recipe
from kerasvision.run_data import load_recipe_data

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "occlusion.json"
OUT = HERE.parent / "saved_models" / "occlusion"
PIPELINE = HERE.parent / "pipelines" / "bccd_retinanet.py"
EPOCHS = 12
SCHEDULE = {"batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0.5, "ema": 0.99, "unfreeze": "P3", "keep": "last"}
# A cell has 1 to 5 % of the photograph.
ERASE = {"name": "erase", "probability": 0.5, "area": [0.005, 0.03], "fill": "mean"}
# Name -> transforms before and after those of the pipeline. Pasted images are moved by themselves, then pasted.
TRAININGS: dict[str, tuple[list[Any], list[Any]]] = {
    "plain": ([], []),
    "random erasing": ([], [ERASE] * 10),
    "copy-paste": ([{"name": "copy_paste", "probability": 0.5}], []),
}
# Name -> attributes of the task.
SUPPRESSIONS: dict[str, dict[str, Any]] = {
    "hard, 0.5": {"suppression": "hard", "iou": 0.5},
    "hard, 0.6": {"suppression": "hard", "iou": 0.6},
    "soft, sigma 0.5": {"suppression": "soft", "sigma": 0.5},
}
SPLITS = ("clean", "covered")
BATCH = 8
PLAIN = ("plain", "hard, 0.5")

Figures = dict[str, dict[str, dict[str, float]]]  # Split -> suppression -> name -> value.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the trainings")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--input", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--limit", type=int, help="at most so many photographs of each split, for trying it out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    size = tuple(arguments.input)
    recipes = {
        (name, seed): recipe_of(name, seed, arguments.epochs, size, arguments.limit)
        for name in TRAININGS
        for seed in range(arguments.seeds)
    }
    data, hidden = scenes(load_recipe_data(recipes["plain", 0].data))
    figures: dict[str, list[Figures]] = {name: [] for name in TRAININGS}
    seconds: dict[str, list[float]] = {name: [] for name in TRAININGS}
    for (name, seed), recipe in recipes.items():
        run = arguments.out / f"{name.replace(' ', '_')}_{seed}"
        seconds[name].append(kv.train(recipe, run)["training"]["seconds"])
        figures[name].append(judge(keras.saving.load_model(run / "model.keras"), data))
        keras.backend.clear_session()
    measured = {name: summarize(of_seeds) for name, of_seeds in figures.items()}
    outside = (hidden < SHARE[0]) | (hidden > SHARE[1])
    result = {
        "images": {name: len(examples) for name, examples in data.splits.items()},
        "objects": len(hidden),
        "hidden": {"mean": round(float(hidden.mean()), 3), "objects outside of 0.2 to 0.6": int(outside.sum())},
        "input": list(size),
        "epochs": arguments.epochs,
        "seeds": arguments.seeds,
        "seconds": {name: round(float(np.mean(times))) for name, times in seconds.items()},
        "environment": {
            "machine": platform.machine(),
            **{name: version(name) for name in ("tensorflow", "keras", "faster-coco-eval")},
        },
        "measured": measured,
    }
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")
    title = f"Blood cells, {len(data.splits['clean'])} photographs"
    show(rows_of(measured), title=title, ours="ours", peer=", ".join(PLAIN), as_json=arguments.json)
    if not arguments.json:
        print(table_of(measured))


def recipe_of(name: str, seed: int, epochs: int, size: tuple[int, int], limit: int | None) -> Recipe:
    """The pipeline's recipe, shorter, with other transforms, and without files to export."""
    recipe = load_recipe(PIPELINE)
    before, after = TRAININGS[name]
    # Anchors stay as large beside the cells.
    anchor = recipe.model.arguments["anchor_size"] * size[1] / recipe.model.input_shape[1]
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, augment=(*before, *recipe.data.augment, *after), limit=limit),
        model=dataclasses.replace(
            recipe.model, input_shape=(*size, 3), arguments={**recipe.model.arguments, "anchor_size": anchor}
        ),
        train=dataclasses.replace(recipe.train, epochs=epochs, **SCHEDULE),
        quantize=QuantizeRecipe(enabled=False),
        export=ExportRecipe(formats=()),
        seed=seed,
    )


def scenes(data: Data) -> tuple[Data, np.ndarray]:
    """The validation photographs, clean and covered, and the shares of their objects that are hidden."""
    clean, covered, shares = data.splits["validation"], [], []
    for index, example in enumerate(clean):
        image = read_image(example["image"])
        pixels, hidden = cover_objects(image, example["boxes"], np.random.default_rng([0, index]))
        covered.append({**example, "image": pixels})
        shares.append(hidden_shares(extents_of(example["boxes"], image.shape[:2]), hidden))
    splits = dict(zip(SPLITS, (clean, covered), strict=True))
    return dataclasses.replace(data, splits=splits), np.concatenate(shares)


def judge(model: kv.TaskModel, data: Data) -> Figures:
    """AP and AP50, in all and of each class."""
    spec = tf.TensorSpec((None, *model.image_size, model.channels), tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def predict(images: Any) -> dict[str, Any]:
        outputs = model(images, training=False)
        found = {}
        for name, settings in SUPPRESSIONS.items():
            # Read while the graph is traced, which happens once.
            vars(model.task).update(settings)
            found[name] = model.task.decode(outputs)
        return found

    figures: Figures = {}
    for split in SPLITS:
        metrics = {name: DetectionMetrics(model.labels, image_size=model.image_size) for name in SUPPRESSIONS}
        options = {"image_size": model.image_size, "preprocessing": model.preprocessing, "batch_size": BATCH}
        for images, targets in data.batches(split, **options):
            for name, found in predict(images).items():
                metrics[name].update(targets, found)
        figures[split] = {name: chosen(metrics[name].result()) for name in SUPPRESSIONS}
    return figures


def chosen(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name in ("AP", "AP50") or name.startswith("AP/")}


def summarize(of_seeds: list[Figures]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Split -> suppression -> figure -> {"mean", "sd"} over the seeds."""

    def over_seeds(*values: float) -> dict[str, float]:
        spread = np.std(values, ddof=min(1, len(values) - 1))
        return {"mean": round(float(np.mean(values)), 4), "sd": round(float(spread), 4)}

    return tf.nest.map_structure(over_seeds, *of_seeds)


def rows_of(measured: Mapping[str, Any]) -> list[dict]:
    """AP of each training and suppression beside the plain one."""
    rows = []
    for split in SPLITS:
        # None in a trial so short that nothing is found.
        peer = measured[PLAIN[0]][split][PLAIN[1]]["AP"]["mean"] or None
        for training in TRAININGS:
            for suppression in SUPPRESSIONS:
                if (training, suppression) != PLAIN:
                    figure = measured[training][split][suppression]["AP"]
                    case = f"{split}: {training}, {suppression}: AP"
                    rows.append({**row(case, figure["mean"], peer, "share", 1.0, "least"), "sd": figure["sd"]})
    return rows


def table_of(measured: Mapping[str, Any]) -> str:
    """README.md's table, in percent."""
    heads = [f"{split}: AP" if name == "AP" else name for split in SPLITS for name in ("AP", "AP50")]
    lines = [f"| training | suppression | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for training in TRAININGS:
        for suppression in SUPPRESSIONS:
            cells = []
            for split in SPLITS:
                for name in ("AP", "AP50"):
                    figure = measured[training][split][suppression][name]
                    cells.append(f"{100 * figure['mean']:.1f}" + (f"±{100 * figure['sd']:.1f}" if figure["sd"] else ""))
            lines.append(f"| {training} | {suppression} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
