"""The classifier's head: pool, dropout, one Dense layer of logits."""

from collections.abc import Callable
from typing import Any

from keras import layers

from kerasvision.classification.task import ClassificationTask
from kerasvision.registry import Entry

HEAD_LAYERS = ("pool", "dropout", "logits")


def classifier(backbone: Entry) -> Callable[..., Any]:
    """Builder of a classifier on a backbone.

    Args:
        backbone: the registry's row.

    Returns:
        `build(x, task, *, weights, dropout, **backbone arguments) -> {"logits": [B, K]}`.
    """

    def build(
        x: Any, task: ClassificationTask, *, weights: str | None = None, dropout: float = 0.2, **arguments: Any
    ) -> dict[str, Any]:
        features = backbone.builder(x, weights=weights, **arguments)
        x = features["top"] if "top" in features else features["P5"]  # [B, h, w, C]
        x = layers.GlobalAveragePooling2D(name="pool")(x)  # [B, C]
        x = layers.Dropout(dropout, name="dropout")(x)
        # float32 logits keep softmax and loss exact under a float16 policy.
        logits = layers.Dense(len(task.labels), name="logits", dtype="float32")
        outputs = {"logits": logits(x)}  # [B, K]
        if weights is not None and backbone.load_head and len(task.labels) == backbone.weights[weights].classes:
            logits.set_weights(backbone.load_head(weights, **arguments))
        return outputs

    return build
