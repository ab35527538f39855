"""Quantization-aware training: a fake-quantized twin that trains with the same task as the Keras 3 model."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from kerasvision.compress.biases import quantizer_of
from kerasvision.compress.bridge import build_twin
from kerasvision.compress.graph import shift_input
from kerasvision.compress.policy import fake_quantize
from kerasvision.compress.preserve import KINDS
from kerasvision.compress.quantizers import RangeQuantizer, WeightQuantizer, observed
from kerasvision.compress.twin_model import TwinModel, check_source
from kerasvision.errors import QuantizationError, UnknownNameError, closest
from kerasvision.preprocessing import Preprocessing
from kerasvision.task import TaskModel


def quantize(
    model: TaskModel,
    islands: Collection[str] = (),
    *,
    weights: str | Mapping[str, str] = "int8",
    preserve: Collection[str] = (),
) -> "QuantizedModel":
    """A model that trains as the int8 file will compute.

    Weights become int8, per channel and symmetric; activations int8, per tensor and asymmetric (Jacob et al.,
    2018, arXiv:1712.05877). Other formats of weights choose among the codes of int8, so the file holds them exactly;
    activations keep 8 bits. The model itself is not changed. Fine-tune the result for an epoch or two at a low
    learning rate: its ranges start empty.

    Args:
        model: a trained model.
        islands: names of layers that stay in float on purpose.
        weights: number format of every kernel: "int8", "int4", "power_of_two" or "additive_power_of_two", four bits
            each but the first; or the format of each named layer, int8 for the others.
        preserve: what pruning and weight sharing made, and fine-tuning must keep: "sparsity", the zeros; "clusters",
            the number of values of each kernel, for which all channels of a shared kernel have one scale (in the file
            a channel has the opposite signs where its normalization has a negative factor). A Dense kernel of more
            than 11 million weights counts as several.

    Raises:
        BridgeError: a layer has no twin in tf_keras.
        QuantizationError: a layer cannot be quantized and is not declared an island; all of them are listed. Or no
            kernel has what is to be preserved.
        UnknownNameError: no such format, no layer of that name, or no such thing to preserve.
    """
    check_source(model, "quantize")
    quantized = QuantizedModel(model, islands, weights, preserve)
    kernels = [quantizer for quantizer in quantized.quantizers.values() if isinstance(quantizer, WeightQuantizer)]
    for kind in preserve:
        if not any(kind in kernel.preserved for kernel in kernels):
            raise QuantizationError(
                f"No kernel of {model.name} has {kind} to preserve. Call {KINDS[kind]} first, fit, and quantize the "
                f"result of strip(); or leave out preserve."
            )
    return quantized


def _with_input_of_pixels(
    twin: tf_keras.Model, preprocessing: Preprocessing
) -> tuple[tf_keras.Model, tuple[float, int] | None, float]:
    """Let the zero point of a uint8 input be a whole pixel.

    x / 127.5 - 1 is 0 at the pixel 127.5. Where the first layers are convolutions, they take half a pixel of it as
    a part of their biases. What they see beyond the image's border is then half a pixel from 0.

    Returns:
        The twin, scale and zero point of the input (None where no tensor can carry the preprocessing), and what the
        first layers add to their input.
    """
    pixel = preprocessing.zero_pixel()
    if pixel is None:
        return twin, None, 0.0
    scale = preprocessing.scale[0]
    shift = preprocessing.offset[0] + pixel * scale
    if abs(shift) < 1e-3 * scale:
        return twin, (scale, pixel), 0.0
    shifted = shift_input(twin, shift)
    return (twin, None, 0.0) if shifted is None else (shifted, (scale, pixel), shift)


class QuantizedModel(TwinModel):
    """Raw pixels -> fake-quantized net -> dict of raw outputs, with the task of the model it came from.

    Its ranges come from training (`fit`) or from images alone (`calibrate`).

    Args:
        model: the Keras 3 model.
        islands: names of layers that stay in float on purpose.
        weights: number format of the kernels, of all or of named layers; see `quantize`.
        preserve: of "sparsity" and "clusters", what the kernels keep.
    """

    def __init__(
        self,
        model: TaskModel,
        islands: Collection[str] = (),
        weights: str | Mapping[str, str] = "int8",
        preserve: Collection[str] = (),
    ) -> None:
        _check_known(preserve, KINDS, "property to preserve")

        def weight_quantizer(name: str, channels: int) -> WeightQuantizer:
            layer = name.rsplit("/", 1)[0]
            chosen = weights if isinstance(weights, str) else weights.get(layer, "int8")
            return WeightQuantizer(name, channels, chosen, preserve)

        twin, self.input_quantization, shift = _with_input_of_pixels(build_twin(model.net), model.preprocessing)
        # The input's 8 bits are the pixels themselves, so that a uint8 tensor carries the preprocessing.
        ends = np.outer((0.0, 255.0), model.preprocessing.scale) + np.asarray(model.preprocessing.offset) - shift
        fake = fake_quantize(twin, (ends.min(), ends.max()), islands, weight_quantizer)
        if not isinstance(weights, str):
            kernels = [name for name, quantizer in fake.quantizers.items() if isinstance(quantizer, WeightQuantizer)]
            _check_known(weights, {name.rsplit("/", 1)[0] for name in kernels}, "layer with a quantized kernel of name")
        super().__init__(model, fake.net, shift)
        self.islands = fake.islands
        chosen = weights if isinstance(weights, str) else dict(weights)
        # As text, because tf_keras would wrap a dict.
        self._choices = json.dumps({"weights": chosen, "preserve": list(preserve)})
        # Behind a function, because tf_keras would track the attribute.
        self._fake = lambda: fake

    @property
    def quantizers(self) -> dict[str, Any]:
        """ "LAYER/output" or "LAYER/kernel" -> what quantizes it."""
        return self._fake().quantizers

    @property
    def units(self) -> dict[str, str]:
        """ "LAYER/output" or "LAYER/kernel" -> the first of the layers that become one int8 op with it."""
        return self._fake().units

    def get_config(self) -> dict[str, Any]:
        """The `create_model` call of the model it came from, and what `quantize` was told."""
        return {"model": self.source_config, "islands": list(self.islands), **json.loads(self._choices)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "QuantizedModel":
        """Rebuild with fresh weights and ranges; `load_weights` brings back the trained ones."""
        return cls(TaskModel.from_config(config["model"]), config["islands"], config["weights"], config["preserve"])

    def calibrate(self, images: np.ndarray, batch_size: int = 16) -> None:
        """Take the ranges from images, without training: post-training quantization.

        Every range goes from the lowest to the highest value that the float net gives.

        Args:
            images: pixels of 0..255, [N, H, W, C].
            batch_size: how many of them at once.
        """
        ranges = [name for name, quantizer in self.quantizers.items() if isinstance(quantizer, RangeQuantizer)]

        @tf.function(autograph=False)
        def extremes(batch: Any) -> Any:
            lowest: dict[str, Any] = {}
            highest: dict[str, Any] = {}

            def note(name: str, values: Any, quantized: Any) -> Any:
                # A shared layer is called once for each level.
                lowest[name] = tf.minimum(lowest.get(name, np.inf), tf.reduce_min(values))
                highest[name] = tf.maximum(highest.get(name, -np.inf), tf.reduce_max(values))
                return values

            with observed(note):
                self(batch, training=False)
            return tf.stack([[lowest[name], highest[name]] for name in ranges])  # [ranges, 2]

        found = [
            extremes(tf.constant(images[start : start + batch_size], tf.float32)).numpy()
            for start in range(0, len(images), batch_size)
        ]
        for name, low, high in zip(ranges, np.min(found, axis=0)[:, 0], np.max(found, axis=0)[:, 1], strict=True):
            self.quantizers[name].set_range(float(low), float(high))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """ "LAYER/output" and the like, or "input" -> (lowest, highest) value that the tensor's 8 bits span."""
        return {name: quantizer.limits() for name, quantizer in self.quantizers.items() if hasattr(quantizer, "limits")}

    def output_steps(self) -> dict[str, float]:
        """Raw output -> what one step of its 8 bits is worth; an output that stays in float has none."""
        steps = {}
        for name, tensor in self.net.output.items():
            quantizer = quantizer_of(tensor)
            if quantizer is not None:
                low, high = quantizer.limits()
                steps[name] = (high - low) / 255
        return steps

    def check_trained(self) -> None:
        """Make sure that every range was observed.

        Raises:
            QuantizationError: the model was neither trained after `quantize` nor calibrated.
        """
        idle = [
            name
            for name, quantizer in self.quantizers.items()
            if isinstance(quantizer, RangeQuantizer) and quantizer.variables["batches"].numpy() == 0
        ]
        if idle:
            raise QuantizationError(
                f"The quantization ranges of {len(idle)} tensors were never observed (the first is {idle[0]}). "
                "Fine-tune first: quantized.compile('adam', learning_rate=1e-4); quantized.fit(train, epochs=1); "
                "or quantized.calibrate(images), which is cheaper and less exact."
            )


def _check_known(names: Collection[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(f'There is no {what} "{name}".{closest(name, known)}')
