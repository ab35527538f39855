"""Several devices of one machine, such that they compute what one device would."""

from typing import Any

import keras
import tensorflow as tf

from kerasvision.errors import RecipeError


def make_strategy(name: str | None) -> tf.distribute.Strategy:
    """A tf.distribute strategy by name.

    Args:
        name: None for one device; "mirrored" for all GPUs, or all logical CPU devices where there is no GPU.
    """
    if name is None:
        return tf.distribute.get_strategy()
    if devices := tf.config.list_logical_devices("GPU"):
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    # The collective ops that are the default number themselves differently on each CPU device (TensorFlow 2.21), and
    # then fail on the sums of synchronized batch normalization.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def synchronize_batch_norm(model: keras.Model) -> None:
    """Let batch normalization see the whole batch, not one replica's share of it."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def training_batch_size(images: int, batch_size: int, replicas: int) -> int:
    """The batch size that training really has.

    Args:
        images: in the training split.
        batch_size: wanted, over all replicas.
        replicas: that share a batch evenly.

    Raises:
        RecipeError: the batch cannot be shared evenly.
    """
    if replicas == 1:
        return batch_size
    if batch_size % replicas:
        raise RecipeError(
            f"train.batch_size is {batch_size}, which {replicas} devices cannot share evenly. It is the size over all "
            f"devices: take {max(batch_size // replicas, 1) * replicas}, a multiple of {replicas}."
        )
    if images < replicas:
        raise RecipeError(f"{images} training images cannot be shared by {replicas} devices; use train.strategy=null.")
    return min(batch_size, images // replicas * replicas)


def whole_batches(dataset: tf.data.Dataset, images: int, batch_size: int, replicas: int) -> tuple[tf.data.Dataset, int]:
    """A data set in which each replica gets equal shares, and the number of its batches.

    One device takes the last, smaller batch as it comes. Several would weigh its images wrongly, or get none, whose
    mean loss is NaN; they leave it out (other images in each epoch, since they are shuffled).

    Args:
        dataset: batches.
        images: in it.
        batch_size: of every batch but the last.
        replicas: that share a batch.
    """
    if replicas == 1:
        return dataset, -(-images // batch_size)
    steps = images // batch_size
    return dataset.take(steps), steps


def validation_batch_size(images: int, batch_size: int, replicas: int) -> int:
    """The largest batch size whose last batch still has an image for each replica.

    Validation weighs by the number of images, so uneven shares are right, but an empty one is not.

    Args:
        images: in the validation split.
        batch_size: wanted.
        replicas: that share a batch.

    Raises:
        RecipeError: there is none.
    """
    for size in range(batch_size, replicas - 1, -1):
        last = images % size
        if replicas == 1 or (size % replicas == 0 and (last == 0 or _shares(last, replicas) == replicas)):
            return size
    raise RecipeError(
        f"{images} validation images cannot be shared by {replicas} devices in batches of at most {batch_size}; use "
        "more images, a larger train.batch_size, or train.strategy=null."
    )


def _shares(images: int, replicas: int) -> int:
    # tf.distribute fills replica after replica with ceil(images / replicas).
    return -(-images // -(-images // replicas))


def replicas_of(model: Any) -> int:
    """Number of devices a model trains on."""
    return model.distribute_strategy.num_replicas_in_sync
