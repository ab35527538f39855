"""Which images a report shows, and how they get into the page."""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.data.decode import read_image
from kerasvision.data.statistics import class_map
from kerasvision.draw import draw
from kerasvision.masks import PackedMasks, decode_masks
from kerasvision.predictions import ImageSource

THUMBNAIL = 192
SIDE = 400


@dataclasses.dataclass(frozen=True, eq=False)
class ReportExample:
    """One image with what the models said about it.

    Args:
        image: path, or pixels 0..255 as [H, W], [H, W, 1] or [H, W, 3].
        truth: indices of the true labels; one unless several are allowed.
        scores: of the float model, [K] in 0..1.
        quantized_scores: of the quantized model, [K]; None where there is none.
        mistake: chosen because it is wrong, and not to show what is typical.
    """

    image: ImageSource
    truth: tuple[int, ...]
    scores: np.ndarray
    quantized_scores: np.ndarray | None = None
    mistake: bool = False


def make_examples(
    examples: Sequence[Mapping[str, Any]],
    scores: np.ndarray,
    quantized_scores: np.ndarray | None = None,
    count: int = 12,
) -> list[ReportExample]:
    """Chooses what a report shows of a split: images evenly spread over it, and the most confident mistakes.

    Args:
        examples: N examples of `Data.splits`, in order.
        scores: of the float model, [N, K].
        quantized_scores: of the quantized model, [N, K].
        count: at most so many of each sort.

    Returns:
        The spread ones, then the mistakes, worst first.
    """
    truths = [_truth(example) for example in examples]
    multi_label = any("labels" in example for example in examples)
    spread = sorted({round(index) for index in np.linspace(0, len(examples) - 1, min(count, len(examples)))})
    wrong = _worst(truths, scores, multi_label)[:count]
    return [
        ReportExample(
            examples[index]["image"],
            truths[index],
            scores[index],
            None if quantized_scores is None else quantized_scores[index],
            mistake,
        )
        for chosen, mistake in ((spread, False), (wrong, True))
        for index in chosen
    ]


def _truth(example: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(label) for label in example.get("labels", [example.get("label")]))


def _worst(truths: Sequence[tuple[int, ...]], scores: np.ndarray, multi_label: bool) -> list[int]:
    """Indices of wrong predictions, the most confident first."""
    wanted = np.zeros_like(scores)
    for row, truth in zip(wanted, truths, strict=True):
        row[list(truth)] = 1
    if multi_label:
        confidence = np.abs(scores - wanted).max(axis=1)
        wrong = confidence > 0.5
    else:
        predicted = scores.argmax(axis=1)
        confidence = scores.max(axis=1)
        wrong = wanted[np.arange(len(scores)), predicted] == 0
    return [int(index) for index in np.argsort(-confidence, kind="stable") if wrong[index]]


def draw_example(example: dict[str, Any], labels: Sequence[str], side: int = SIDE) -> Image.Image:
    """An example of `Data.splits` with all that belongs to it, as a PIL image.

    Args:
        example: with "boxes" or "segmentation".
        labels: class names.
        side: largest side of the picture.
    """
    pixels = read_image(example["image"])
    parts: dict[str, Any] = {
        key: np.asarray(example[key]) for key in ("boxes", "classes", "crowd", "keypoints") if key in example
    }
    if "masks" in example:
        masks = example["masks"]
        packed = isinstance(masks, PackedMasks)
        parts["masks"] = masks if packed else decode_masks(masks, pixels.shape[:2])
    if "segmentation" in example:
        parts["segmentation"] = class_map(example["segmentation"])
    return draw(pixels, labels=labels, side=side, **parts)


def thumbnail(image: ImageSource) -> str:
    """The image, at most 192 pixels a side, as a data URI."""
    pixels = read_image(image)
    small = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(small)


def data_uri(picture: Image.Image) -> str:
    """A picture as a data URI: PNG while it is tiny, else JPEG."""
    buffer = io.BytesIO()
    tiny = max(picture.size) <= 64
    if tiny:
        picture.save(buffer, "PNG")
    else:
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
