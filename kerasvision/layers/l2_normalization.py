"""Every place of a feature map brought to one length, so that maps of different depth may share a head."""

from typing import Any

import keras
from keras import layers, ops

# Of the squared length; a place whose channels are all 0 stays 0, and has a gradient.
_LEAST = 1e-12


@keras.saving.register_keras_serializable("kerasvision")
class L2Normalization(layers.Layer):
    """x / |x| over the channels of each place, times a learned scale of each channel (ParseNet).

    Liu et al., 2015, arXiv:1506.04579. [B, H, W, C] -> [B, H, W, C]. Computed in float32 whatever the policy: the
    squares of a deep net's features do not fit into half precision.

    Args:
        scale: what the scales start at; 20 in SSD.
    """

    # A channel of unit length is about 1 / sqrt(C): the int8 kernel's fixed steps of 1/128 would leave it 3 bits.
    quantization = "island"

    def __init__(self, scale: float = 20.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        """One scale a channel."""
        start = keras.initializers.Constant(self.scale)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=start, autocast=False)

    def call(self, x: Any) -> Any:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = ops.cast(x, "float32")
        power = ops.sum(x * x, axis=-1, keepdims=True)  # [B, H, W, 1]
        return ops.cast(x * ops.rsqrt(ops.maximum(power, _LEAST)) * self.gamma, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "scale": self.scale}
