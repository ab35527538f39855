"""What pruning and weight sharing made of a kernel, kept while it is quantized and fine-tuned."""

from typing import Any

import numpy as np
import tensorflow as tf

# What `quantize(model, preserve=...)` knows, and how a kernel comes to have it.
KINDS = {"sparsity": "prune", "clusters": "cluster"}


def cluster_index(kernel: np.ndarray) -> np.ndarray:
    """Which weights share a value.

    Args:
        kernel: of any shape.

    Returns:
        Of its shape: number of the cluster; -1 everywhere where the kernel's values, zero aside, do not repeat.
    """
    distinct, index = np.unique(kernel, return_inverse=True)
    if 2 * np.count_nonzero(distinct) > np.count_nonzero(kernel):
        return np.full(kernel.shape, -1, np.int64)
    return index.reshape(kernel.shape).astype(np.int64)


def shared(values: Any, index: Any) -> Any:
    """Each weight is its cluster's mean; its gradient is the sum over the cluster (Han et al., 2016).

    As all weights of a cluster have one gradient, they stay together under any optimizer, so their mean is the
    centroid, which then is trained as if it were the one weight there is.

    Args:
        values: of any shape.
        index: from `cluster_index`; where it is -1 the values pass as they are.

    Returns:
        Of the values' shape.
    """
    clusters = tf.maximum(tf.reduce_max(index) + 1, 1)
    total = tf.math.unsorted_segment_sum(values, index, clusters)  # [clusters]; leaves -1 out.
    count = tf.math.unsorted_segment_sum(tf.ones_like(values), index, clusters)
    centroids = total + tf.stop_gradient(total / tf.maximum(count, 1.0) - total)
    return tf.where(index < 0, values, tf.gather(centroids, tf.maximum(index, 0)))
