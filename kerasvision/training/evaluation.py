"""What a run's models are worth on a data set: figures, what else metrics.json has, and pictures for the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.classification.metrics import confusion_matrix
from kerasvision.data import load_image
from kerasvision.data.decode import read_image
from kerasvision.detections import Found
from kerasvision.report import (
    DetectorExample,
    ReportExample,
    SegmenterExample,
    choose_images,
    choose_maps,
    detector_facts,
    make_examples,
)
from kerasvision.training.epoch_evaluation import EpochEvaluation, task_name


@dataclasses.dataclass(frozen=True, eq=False)
class Judgement:
    """What was found out about the models of a run.

    Args:
        figures: "float", and "quantized" where there is such a model -> {metric: value}.
        facts: what metrics.json has of this task alone, in types that JSON knows.
        examples: for the pictures of the report.
    """

    figures: dict[str, dict[str, float]]
    facts: dict[str, Any]
    examples: list[ReportExample] | list[DetectorExample] | list[SegmenterExample]


def judge(
    model: Any, quantized: Any | None, dataset: tf.data.Dataset, examples: Sequence[Mapping[str, Any]]
) -> Judgement:
    """Measure a run's models.

    Args:
        model: the TaskModel.
        quantized: the QuantizedModel, where there is one.
        dataset: of (images, targets), not shuffled.
        examples: of `Data.splits`, from which the data set was made.
    """
    models = {"float": model, **({} if quantized is None else {"quantized": quantized})}
    if task_name(model) == "detection":
        return _judge_detectors(models, dataset, examples)
    if task_name(model) == "segmentation":
        return _judge_segmenters(models, dataset, examples)
    return _judge_classifiers(models, dataset, examples)


def _judge_classifiers(
    models: dict[str, Any], dataset: tf.data.Dataset, examples: Sequence[Mapping[str, Any]]
) -> Judgement:
    figures, scores = {}, {}
    targets: dict[str, np.ndarray] = {}
    for kind, model in models.items():
        targets, predictions = predict_all(model, dataset)
        figures[kind] = model.task.metrics(targets, predictions)
        scores[kind] = predictions["scores"]
    facts = {}
    if not models["float"].task.multi_label:
        matrix = confusion_matrix(targets["label"], scores["float"])
        facts["classification"] = {"confusion_matrix": matrix.tolist()}
    return Judgement(figures, facts, make_examples(examples, scores["float"], scores.get("quantized")))


def _judge_detectors(
    models: dict[str, Any], dataset: tf.data.Dataset, examples: Sequence[Mapping[str, Any]]
) -> Judgement:
    evaluations = {kind: EpochEvaluation(dataset, model) for kind, model in models.items()}
    measured = {kind: evaluation.measure() for kind, evaluation in evaluations.items()}
    facts: dict[str, Any] = {kind: detector_facts(meter.boxes) for kind, meter in measured.items()}
    # Where nothing is right, no score is better than another.
    scores = {kind: (known["working_point"] or {"score": 0.5})["score"] for kind, known in facts.items()}
    facts["image_size"] = list(models["float"].image_size)
    pictures = [
        DetectorExample(
            examples[index],
            {
                kind: _found(model, evaluations[kind], examples[index]["image"]).above(scores[kind])
                for kind, model in models.items()
            },
            mistake,
        )
        for index, mistake in choose_images(measured["float"].boxes.images, scores["float"])
    ]
    figures = {kind: meter.result() for kind, meter in measured.items()}
    return Judgement(figures, {"detection": facts}, pictures)


def _judge_segmenters(
    models: dict[str, Any], dataset: tf.data.Dataset, examples: Sequence[Mapping[str, Any]]
) -> Judgement:
    evaluations = {kind: EpochEvaluation(dataset, model) for kind, model in models.items()}
    measured = {kind: evaluation.measure() for kind, evaluation in evaluations.items()}
    facts = {kind: {"confusion_matrix": meter.confusion.tolist()} for kind, meter in measured.items()}
    chosen = choose_maps(measured["float"].image_ious)
    places = sorted({index for index, _ in chosen})
    images, targets = samples_at(dataset, places)
    found = {kind: np.asarray(evaluation.predict(images)["classes"]) for kind, evaluation in evaluations.items()}
    pictures = [
        SegmenterExample(
            examples[index]["image"],
            images[places.index(index)],
            targets[places.index(index)]["segmentation"],
            {kind: maps[places.index(index)] for kind, maps in found.items()},
            mistake,
        )
        for index, mistake in chosen
    ]
    figures = {kind: meter.result() for kind, meter in measured.items()}
    return Judgement(figures, {"segmentation": facts}, pictures)


def samples_at(dataset: tf.data.Dataset, indices: Sequence[int]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Some images of a data set with their targets.

    Args:
        dataset: of (images, targets), not shuffled.
        indices: which, rising.

    Returns:
        [n, H, W, C], and their targets without the batch axis.
    """
    chosen, truths, start = [], [], 0
    for batch, targets in dataset:
        for index in sorted(set(indices) & set(range(start, start + len(batch)))):
            chosen.append(np.asarray(batch[index - start]))
            truths.append({name: np.asarray(values[index - start]) for name, values in targets.items()})
        start += len(batch)
    return np.stack(chosen), truths


def _found(model: Any, evaluation: EpochEvaluation, image: Any) -> Found:
    """What a model finds in an image, in its own pixels: masks of a whole data set would not fit into memory."""
    pixels = read_image(image)
    fitted = load_image(pixels, model.image_size, model.channels, model.preprocessing)
    outputs = {name: np.asarray(values)[0] for name, values in evaluation.predict(fitted[None]).items()}
    return Found.from_outputs(outputs, (pixels.shape[0], pixels.shape[1]), model.image_size, model.preprocessing)


def predict_all(model: Any, dataset: tf.data.Dataset) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Targets and decoded predictions of a whole data set.

    Args:
        model: a TaskModel or QuantizedModel.
        dataset: of (images, targets), not shuffled.

    Returns:
        Targets and predictions, name -> [N, ...].
    """
    targets, predictions = [], []
    spec = tf.TensorSpec((None, *model.image_size, model.channels), tf.float32)
    infer = tf.function(lambda images: model.task.decode(model(images, training=False)), input_signature=[spec])
    for images, wanted in dataset:
        predictions.append(infer(tf.cast(images, tf.float32)))
        targets.append(wanted)
    return _join(targets), _join(predictions)


def _join(batches: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([keras.ops.convert_to_numpy(b[name]) for b in batches]) for name in batches[0]}
