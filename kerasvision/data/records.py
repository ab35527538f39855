"""One example of a set as the features of a TFRecord, and back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import msgspec
import numpy as np
import tensorflow as tf

from kerasvision.data.decode import as_pixels
from kerasvision.data.inspect import BadFile, Decoder, ImageInfo, inspect_file
from kerasvision.data.mask_files import read_segmentation
from kerasvision.data.storage import frame_of, read_bytes
from kerasvision.errors import DataError

Example = dict[str, Any]
Features = dict[str, tf.train.Feature]


@dataclasses.dataclass(frozen=True)
class Record:
    """What is written of one example.

    Args:
        features: feature name -> value, without encoded images.
        contents: "image" and "segmentation" -> encoded bytes.
    """

    features: Features
    contents: dict[str, bytes]

    def serialized(self) -> bytes:
        """The bytes of a tf.train.Example with everything in it; the same for the same example."""
        encoded = {f"{name}/encoded": _bytes([content]) for name, content in self.contents.items()}
        return serialize({**self.features, **encoded})


def serialize(features: Features) -> bytes:
    """The bytes of a tf.train.Example, in an order that does not change."""
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _ints(values: Any) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.asarray(values, np.int64).tolist()))


def _floats(values: Any) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _bytes(values: Any) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _flat(values: Any) -> tf.train.Feature:
    return _floats(np.asarray(values, np.float32).ravel().tolist())


def _plain(value: Any) -> Any:
    """What JSON knows, of a value it does not."""
    return value.decode("ascii") if isinstance(value, bytes) else np.asarray(value).tolist()


def _segmentations(masks: list[Any]) -> tf.train.Feature:
    # msgspec writes bytes as base64, but COCO's compressed run lengths are text.
    plain = ({**mask, "counts": _plain(mask["counts"])} if _has_bytes(mask) else mask for mask in masks)
    return _bytes([msgspec.json.encode(mask, enc_hook=_plain) for mask in plain])


def _has_bytes(mask: Any) -> bool:
    return isinstance(mask, dict) and isinstance(mask["counts"], bytes)


def text(value: str) -> tf.train.Feature:
    """A feature of one text; a path that is no UTF-8 stays what it is."""
    return _bytes([value.encode("utf-8", "surrogateescape")])


def read_text(feature: tf.train.Feature) -> str:
    """The text of a feature."""
    return feature.bytes_list.value[0].decode("utf-8", "surrogateescape")


# Key of an example -> (to a feature, from a feature). Keypoints get their shape from the boxes beside them.
_FIELDS: dict[str, tuple[Callable[[Any], tf.train.Feature], Callable[[tf.train.Feature], Any]]] = {
    "key": (text, read_text),
    "group": (text, read_text),
    "label": (lambda value: _ints([value]), lambda feature: feature.int64_list.value[0]),
    "labels": (_ints, lambda feature: list(feature.int64_list.value)),
    "boxes": (_flat, lambda feature: np.array(feature.float_list.value, np.float32).reshape(-1, 4)),
    "classes": (_ints, lambda feature: np.array(feature.int64_list.value, np.int32)),
    "crowd": (_ints, lambda feature: np.array(feature.int64_list.value, bool)),
    "difficult": (_ints, lambda feature: np.array(feature.int64_list.value, bool)),
    "masks": (_segmentations, lambda feature: [msgspec.json.decode(mask) for mask in feature.bytes_list.value]),
    "keypoints": (_flat, lambda feature: np.array(feature.float_list.value, np.float32)),
}
CONTENTS = ("image", "segmentation")
FIELDS = (*CONTENTS, *_FIELDS)


def encode_example(example: Example, info: ImageInfo | None) -> Record:
    """Prepares one example for writing; image files keep their bytes, pixels become PNG files.

    Args:
        example: as in `Data.splits`.
        info: how to decode the image, where it is known.

    Returns:
        The features, and the encoded images.

    Raises:
        DataError: a file cannot be used.
    """
    features = {name: _FIELDS[name][0](value) for name, value in example.items() if name in _FIELDS}
    image = example["image"]
    if isinstance(image, str) and not frame_of(image):
        content = read_bytes(image)
        info = info or inspected(image)
    else:
        pixels = as_pixels(_frame(image) if isinstance(image, str) else np.asarray(image))
        content = encode_png(pixels)
        info = ImageInfo("PNG", pixels.shape[:2], Decoder.PNG)
    contents = {"image": content}
    features |= {
        "image/format": text(info.format),
        "image/decoder": text(info.decoder.name),
        "image/height": _ints([info.size[0]]),
        "image/width": _ints([info.size[1]]),
        "image/orientation": _ints([info.orientation]),
    }
    if "segmentation" in example:
        contents["segmentation"] = encode_png(_indices(example["segmentation"]))
    return Record(features, contents)


def inspected(image: str) -> ImageInfo:
    """How to decode an image file.

    Raises:
        DataError: it cannot be used.
    """
    info = inspect_file(image)
    if isinstance(info, BadFile):
        raise DataError(f"Cannot read {info}.")
    return info


def _frame(reference: str) -> np.ndarray:
    from kerasvision.data.video import read_frame

    path, index = frame_of(reference) or (reference, 0)
    return read_frame(path, index)


def _indices(segmentation: Any) -> np.ndarray:
    if not isinstance(segmentation, np.ndarray):
        return read_segmentation(segmentation)
    if segmentation.ndim != 2 or segmentation.min(initial=0) < 0 or segmentation.max(initial=0) > 255:
        raise DataError(
            f"Expected a segmentation [H, W] of class indices 0..255, got {list(segmentation.shape)} with values "
            f"{segmentation.min(initial=0)} to {segmentation.max(initial=0)}."
        )
    return segmentation.astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels [H, W], [H, W, 1] or [H, W, 3] (RGB)."""
    colors = pixels[..., ::-1] if pixels.ndim == 3 and pixels.shape[-1] == 3 else pixels
    return cv2.imencode(".png", colors)[1].tobytes()


def decode_features(serialized: bytes) -> Features:
    """The features of a serialized tf.train.Example."""
    return dict(tf.train.Example.FromString(serialized).features.feature)


def decode_fields(features: Features, keypoints: int) -> Example:
    """The fields of an example, without its images.

    Args:
        features: of a record.
        keypoints: points of each object.

    Returns:
        As in `Data.splits`, without "image" and "segmentation".
    """
    example = {name: read(features[name]) for name, (_, read) in _FIELDS.items() if name in features}
    if "keypoints" in example:
        example["keypoints"] = example["keypoints"].reshape(len(example["boxes"]), keypoints, 3)
    return example


def decode_info(features: Features) -> ImageInfo:
    """How to decode the image of a record."""
    return ImageInfo(
        format=read_text(features["image/format"]),
        size=(features["image/height"].int64_list.value[0], features["image/width"].int64_list.value[0]),
        decoder=Decoder[read_text(features["image/decoder"])],
        orientation=features["image/orientation"].int64_list.value[0],
    )
