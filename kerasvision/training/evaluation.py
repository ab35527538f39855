"""Decoded predictions of a model in memory, and the task's figures from them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


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
