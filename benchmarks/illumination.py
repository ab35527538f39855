"""What another light costs a segmenter, and what augmentation and normalisation do about it.

    python benchmarks/illumination.py [--out FOLDER] [--seeds 1] [--json]     (about 6 minutes a training on two cores)

DeepLabv3+ on EfficientNet-Lite0 as in pipelines/camvid_deeplabv3_plus.py, at half the size, learns street scenes with
the same seed and schedule, flips and moves, and:

- plain: nothing else;
- augmentation: random gamma (0.4 to 2.5) and random gains of the channels (0.6 to 1.6), each by a chance of one half;
- grey world, local contrast: every image is normalised so, in training and after.

Each is judged on the 101 validation images in eleven lights: as they are, with gamma 0.4 to 2.5, and with colour casts
(gains of red and blue, or green, that keep the mean). The peer of each row is the plain training in the same light.

Trainings are run folders in --out: an interrupted one goes on where it was, a finished one is not repeated.

Needs: KERASVISION_DATA/camvid, pip install "kerasvision[imagenet-lite]".
"""

import argparse
import dataclasses
import json
import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from table import row, show

import kerasvision as kv
from kerasvision.augment.color import color_cast
from kerasvision.augment.illumination import grey_world, local_contrast
from kerasvision.augment.tone import gamma
from kerasvision.data import Data
from kerasvision.data.decode import read_image
from kerasvision.recipe import ExportRecipe, QuantizeRecipe, Recipe, load_recipe
from kerasvision.run_data import load_recipe_data
from kerasvision.training.epoch_evaluation import EpochEvaluation

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "illumination.json"
OUT = HERE.parent / "saved_models" / "illumination"
PIPELINE = HERE.parent / "pipelines" / "camvid_deeplabv3_plus.py"
EPOCHS = 12
SIZE = (180, 240)
SCHEDULE = {"batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0.5, "ema": 0.98, "unfreeze": "P3", "keep": "last"}
MOVES = ("flip", "affine")
GAMMA = {"name": "gamma", "exponent": [0.4, 2.5], "probability": 0.5}
CAST = {"name": "color_cast", "gain": [0.6, 1.6], "probability": 0.5}
BATCH = 8
PLAIN = "plain"

Change = Callable[[np.ndarray], np.ndarray]


def unchanged(image: np.ndarray) -> np.ndarray:
    return image


# Name -> transforms behind the moves, and what is done to every image that is judged.
TRAININGS: dict[str, tuple[list[Any], Change]] = {
    PLAIN: ([], unchanged),
    "augmentation": ([GAMMA, CAST], unchanged),
    "grey world": (["grey_world"], grey_world),
    "local contrast": (["local_contrast"], local_contrast),
}
LIGHTS: dict[str, Change] = {
    "as they are": unchanged,
    **{f"gamma {exponent}": partial(gamma, exponent=exponent) for exponent in (0.4, 0.6, 0.8, 1.25, 1.6, 2.5)},
    "warm": partial(color_cast, gains=(1.4, 1.0, 0.6)),
    "cold": partial(color_cast, gains=(0.6, 1.0, 1.4)),
    "green": partial(color_cast, gains=(0.8, 1.4, 0.8)),
    "magenta": partial(color_cast, gains=(1.2, 0.6, 1.2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the trainings")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--input", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--limit", type=int, help="at most so many images of each split, for trying it out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in TRAININGS}
    seconds: dict[str, list[float]] = {name: [] for name in TRAININGS}
    for name, (_, normalise) in TRAININGS.items():
        for seed in range(arguments.seeds):
            recipe = recipe_of(name, seed, arguments.epochs, tuple(arguments.input), arguments.limit)
            run = arguments.out / f"{name.replace(' ', '_')}_{seed}"
            seconds[name].append(kv.train(recipe, run)["training"]["seconds"])
            model = keras.saving.load_model(run / "model.keras")
            found[name].append(judge(model, in_lights(load_recipe_data(recipe.data), normalise)))
            keras.backend.clear_session()
    measured = {name: summarize(of_seeds) for name, of_seeds in found.items()}
    result = {
        "input": arguments.input,
        "epochs": arguments.epochs,
        "seeds": arguments.seeds,
        "seconds": {name: round(float(np.mean(times))) for name, times in seconds.items()},
        "environment": {
            "machine": platform.machine(),
            **{name: version(name) for name in ("tensorflow", "keras")},
        },
        "measured": measured,
    }
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")
    rows = rows_of(measured)
    show(rows, title="Street scenes, mIoU", ours="ours", peer=PLAIN, as_json=arguments.json)
    if not arguments.json:
        print(table_of(measured))


def recipe_of(name: str, seed: int, epochs: int, size: tuple[int, int], limit: int | None) -> Recipe:
    """The pipeline's recipe, smaller and shorter, with other transforms, and without files to export."""
    recipe = load_recipe(PIPELINE)
    moves = [each for each in recipe.data.augment if (each if isinstance(each, str) else each["name"]) in MOVES]
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, augment=(*moves, *TRAININGS[name][0]), limit=limit),
        model=dataclasses.replace(recipe.model, input_shape=(*size, 3)),
        train=dataclasses.replace(recipe.train, epochs=epochs, **SCHEDULE),
        quantize=QuantizeRecipe(enabled=False),
        export=ExportRecipe(formats=()),
        seed=seed,
    )


def in_lights(data: Data, normalise: Change) -> Data:
    """The validation images in each light, normalised; a split for each."""
    images = [read_image(example["image"]) for example in data.splits["validation"]]
    splits = {
        light: [
            {**example, "image": normalise(change(image))}
            for example, image in zip(data.splits["validation"], images, strict=True)
        ]
        for light, change in LIGHTS.items()
    }
    return dataclasses.replace(data, splits=splits)


def judge(model: kv.TaskModel, data: Data) -> dict[str, float]:
    """Mean IoU in each light."""
    figures = {}
    for light in LIGHTS:
        options = {"image_size": model.image_size, "preprocessing": model.preprocessing, "batch_size": BATCH}
        evaluation = EpochEvaluation(data.batches(light, **options), model)
        figures[light] = evaluation.measure().result()["mIoU"]
    return figures


def summarize(of_seeds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Light -> {"mean", "sd"} over the seeds."""
    summary = {}
    for light in LIGHTS:
        values = [figures[light] for figures in of_seeds]
        spread = float(np.std(values, ddof=min(1, len(values) - 1)))
        summary[light] = {"mean": round(float(np.mean(values)), 4), "sd": round(spread, 4)}
    return summary


def rows_of(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict]:
    """Each training beside the plain one, in each light."""
    return [
        {
            **row(f"{light}: {name}", figures[light]["mean"], measured[PLAIN][light]["mean"], "mIoU", 1.0, "least"),
            "sd": figures[light]["sd"],
        }
        for light in LIGHTS
        for name, figures in measured.items()
        if name != PLAIN
    ]


def table_of(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """README.md's table, in percent."""
    lines = [f"| light | {' | '.join(measured)} |", "|---" * (1 + len(measured)) + "|"]
    for light in LIGHTS:
        cells = [f"{100 * figures[light]['mean']:.1f}" for figures in measured.values()]
        lines.append(f"| {light} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
