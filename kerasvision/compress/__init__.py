"""The only room that imports tf_keras and TFMOT: an exact twin of the net, and quantization-aware training on it."""

from kerasvision.compress.qat import QuantizedModel, quantize

__all__ = ["QuantizedModel", "quantize"]
