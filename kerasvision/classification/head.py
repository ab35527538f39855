"""The classifier's head: pool, dropout, one Dense layer of logits."""

from collections.abc import Callable
from typing import Any

from keras import layers

from kerasvision.classification.task import ClassificationTask
from kerasvision.errors import WeightsError, closest
from kerasvision.layers.pooling import POOLING
from kerasvision.registry import Entry


def classifier(backbone: Entry) -> Callable[..., Any]:
    """Builder of a classifier on a backbone.

    Args:
        backbone: the registry's row.

    Returns:
        `build(x, task, *, weights, dropout, pooling, **backbone arguments)`, which returns {"logits": [B, K]} and the
        backbone's features. `pooling` is a name of `kerasvision.layers.pooling.POOLING`.
    """

    def build(
        x: Any,
        task: ClassificationTask,
        *,
        weights: str | None = None,
        dropout: float = 0.2,
        pooling: str = "avg",
        **arguments: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if pooling not in POOLING:
            raise ValueError(f'There is no pooling "{pooling}".{closest(pooling, POOLING)}')
        features = backbone.builder(x, weights=weights, **arguments)
        x = pool(features["top"] if "top" in features else features["P5"], pooling, backbone.name)  # [B, C]
        x = layers.Dropout(dropout, name="dropout")(x)
        # float32 logits keep softmax and loss exact under a float16 policy.
        logits = layers.Dense(len(task.labels), name="logits", dtype="float32")
        outputs = {"logits": logits(x)}  # [B, K]
        if weights is not None and backbone.load_head and len(task.labels) == backbone.weights[weights].classes:
            kernel, bias = backbone.load_head(weights, **arguments)
            if kernel.shape != logits.kernel.shape:
                raise WeightsError(
                    f'The classifier of the weights "{weights}" takes {kernel.shape[0]} features, and '
                    f'pooling="{pooling}" gives it {logits.kernel.shape[0]}. Take pooling="avg", which it was trained '
                    "with, or classes of your own (num_classes or labels)."
                )
            logits.set_weights([kernel, bias])
        return outputs, features

    return build


def pool(top: Any, pooling: str, backbone: str) -> Any:
    """One vector an image.

    Args:
        top: what the backbone hands to the classifier: a map [B, h, w, C], or a vector [B, C], which is taken as it is.
        pooling: a name of `POOLING`.
        backbone: its name, for the error.

    Returns:
        [B, C'], from a layer named "pool" where there was a map.

    Raises:
        ValueError: another pooling than the default was asked for where there is nothing to pool.
    """
    if len(top.shape) == 4:
        return POOLING[pooling](top, "pool")
    if pooling != "avg":
        raise ValueError(
            f'pooling="{pooling}" has no feature map to pool: "{backbone}" hands a vector of {top.shape[-1]} values '
            "to the classifier. Leave pooling out, or take another backbone."
        )
    return top
