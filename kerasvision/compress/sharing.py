"""Weight sharing: every kernel is written with a few values (Han et al., 2016, arXiv:1510.00149)."""

from collections.abc import Collection
from typing import Any

import numpy as np
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras.cluster_config import CentroidInitialization
from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights

from kerasvision.compress.twin_model import check_source
from kerasvision.compress.wrapping import WrappedModel
from kerasvision.task import TaskModel

STARTS = {"linear": CentroidInitialization.LINEAR, "k-means++": CentroidInitialization.KMEANS_PLUS_PLUS}


def cluster(
    model: TaskModel,
    clusters: int = 16,
    *,
    start: str = "linear",
    preserve: Collection[str] = (),
    skip: Collection[str] | None = None,
) -> "ClusteredModel":
    """A model whose kernels hold at most `clusters` different values each.

    k-means finds the values. While the model trains, TFMOT moves each by the sum of the gradients of all weights
    that share it, and lets a weight change its cluster. Depthwise kernels, biases and normalization are left as
    they are. The model itself is not changed.

    Args:
        model: a trained model.
        clusters: values of one kernel, at least 2; at least 3 where zeros are preserved.
        start: of k-means: "linear", values at equal distances (Han et al. lose the least accuracy with it), or
            "k-means++" (Arthur & Vassilvitskii, 2007).
        preserve: ("sparsity",) keeps zeros: one of the values is 0.
        skip: names of layers to leave as they are; None for those next to the image and to the outputs.

    Raises:
        ValueError: `clusters`, `start` or `preserve` is none of these, or no layer is left to cluster.
        UnknownNameError: no layer of such a name.
        BridgeError: a layer has no twin in tf_keras.
    """
    check_source(model, "cluster")
    sparse = "sparsity" in preserve
    if clusters < 2 + sparse:
        raise ValueError(f"clusters must be at least {2 + sparse}, got {clusters}.")
    if start not in STARTS:
        raise ValueError(f'start must be one of {", ".join(STARTS)}, got "{start}".')
    if unknown := set(preserve) - {"sparsity"}:
        raise ValueError(f'preserve can only name "sparsity", got {sorted(unknown)}.')
    return ClusteredModel(model, clusters, start, sparse, skip)


class ClusteredModel(WrappedModel):
    """A twin with shared weights; see `cluster`.

    Args:
        model: the Keras 3 model.
        clusters: values of one kernel.
        start: key of STARTS.
        sparse: whether zeros stay zeros.
        skip: names of layers left as they are; None for the first and the last.
    """

    def __init__(self, model: TaskModel, clusters: int, start: str, sparse: bool, skip: Collection[str] | None) -> None:
        def wrap(layer: tf_keras.layers.Layer) -> ClusterWeights:
            return _KMeans(layer, clusters, STARTS[start], preserve_sparsity=sparse)

        super().__init__(model, wrap, skip)
        self.clusters = clusters

    def weights_of(self, wrapper: ClusterWeights) -> list[np.ndarray]:
        """The layer's weights, its kernel made of its centroids."""
        wrapper.update_clustered_weights_associations()
        values = wrapper.layer.get_weights()  # Without the kernel, which is a tensor there.
        for position, name in wrapper.position_original_weights.items():
            values.insert(position, np.asarray(wrapper.get_weight_from_layer(name)))
        return values


class _KMeans(ClusterWeights):
    """TFMOT stops at the centroids' start; here k-means goes on to its end."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        for name, centroids in self.cluster_centroids.items():
            values = self.original_clusterable_weights[name].numpy().ravel()
            if self.preserve_sparsity:
                found = centroids.numpy()
                other = np.arange(len(found)) != int(self.zero_idx[name])
                found[other] = k_means(values[values != 0], found[other])
            else:
                found = k_means(values, centroids.numpy())
            centroids.assign(found)


def k_means(values: np.ndarray, centroids: np.ndarray, rounds: int = 300) -> np.ndarray:
    """Lloyd's algorithm in one dimension, from given centroids until nothing moves.

    Args:
        values: [N].
        centroids: [K]; one that attracts no value stays where it is.
        rounds: at most.

    Returns:
        Centroids, [K], ascending.
    """
    values = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centroids = np.sort(centroids.astype(np.float64))
    for _ in range(rounds):
        borders = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(values)]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids.astype(np.float32)
