"""The only room that imports tf_keras and TFMOT: an exact twin of the net, and what makes it small.

Quantization-aware training and calibration, pruning, weight sharing, and which layers the 8 bits cost most.
"""

from kerasvision.compress.folding import FoldReport, fold
from kerasvision.compress.layer_errors import LayerError, sensitivity
from kerasvision.compress.pruning import PrunedModel, prune
from kerasvision.compress.qat import QuantizedModel, quantize
from kerasvision.compress.sharing import ClusteredModel, cluster

__all__ = [
    "ClusteredModel",
    "FoldReport",
    "LayerError",
    "PrunedModel",
    "QuantizedModel",
    "cluster",
    "fold",
    "prune",
    "quantize",
    "sensitivity",
]
