"""Augmentation: transforms from example to example, made to run inside tf.data.

An example is a dict of what one image is and holds; all of its keys but "image" are optional. Coordinates are
continuous pixels, (0, 0) is the top left corner.

- "image": uint8 [H, W, 1 or 3].
- "label": class index; "labels": float32 [K] of 0..1; "label_weights": float32 [K], the shares of mixed images.
- "boxes": float32 [N, 4] xyxy; "classes": int32 [N]; "crowd", "difficult": bool [N].
- "masks": `kerasvision.masks.PackedMasks` of the N objects.
- "keypoints": float32 [N, P, 3] of (x, y, visibility); visibility 0 is absent, 1 covered, 2 visible.
- "segmentation": uint8 [H, W] of class indices; 255 is void.
"""

from kerasvision.augment.base import Augmentation, Example, Mixing, Transform
from kerasvision.augment.compose import apply, augment, bind, generator
from kerasvision.augment.moves import Fill, keep_visible, move_rest, warp, window
from kerasvision.augment.table import TRANSFORMS, build

__all__ = [
    "TRANSFORMS",
    "Augmentation",
    "Example",
    "Fill",
    "Mixing",
    "Transform",
    "apply",
    "augment",
    "bind",
    "build",
    "generator",
    "keep_visible",
    "move_rest",
    "warp",
    "window",
]
