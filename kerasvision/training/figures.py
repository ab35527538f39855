"""Pictures for TensorBoard: grids of images, a confusion matrix, curves. Pure functions from arrays to pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, PLAIN = "#15803d", "#b91c1c", "#111827"
CELL, FRAME, GAP, TEXT = 168, 4, 12, 15
# Precision-recall curves with names; those of other classes are grey.
NAMED_CURVES = 10
# Above so many classes the cells of a confusion matrix are too small for numbers.
NUMBERED_CLASSES = 20


def image_grid(
    images: np.ndarray,
    titles: Sequence[Sequence[str]] = (),
    colors: Sequence[str] = (),
    columns: int = 4,
) -> np.ndarray:
    """Images in rows, each in a frame below its title. Text that is too wide is cut, and ends in three dots.

    Args:
        images: [N, H, W, C] pixels of 0..255, C 1 or 3.
        titles: lines above each image, or none at all.
        colors: of the titles and frames.
        columns: images in a row.

    Returns:
        uint8 [h, w, 3].
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    font = ImageFont.load_default(TEXT)
    lines = max((len(title) for title in titles), default=0)
    line_height = TEXT + 4
    width, height = CELL + GAP, CELL + GAP + lines * line_height
    canvas = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for index, pixels in enumerate(np.clip(np.rint(images), 0, 255).astype(np.uint8)):
        left, top = GAP + index % columns * width, GAP + index // columns * height
        color = colors[index] if colors else PLAIN
        for number, line in enumerate(titles[index] if titles else ()):
            draw.text((left, top + number * line_height), _fit(line, font, CELL), fill=color, font=font)
        top += lines * line_height
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=color if colors else "#e5e7eb")
        inner = (left + FRAME, top + FRAME, left + CELL - 1 - FRAME, top + CELL - 1 - FRAME)
        draw.rectangle(inner, fill="#f3f4f6")
        picture = _resized(pixels, CELL - 2 * FRAME)
        canvas.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
    return np.asarray(canvas)


def prediction_grid(
    images: np.ndarray, scores: np.ndarray, truths: Sequence[Sequence[int]], labels: Sequence[str]
) -> np.ndarray:
    """Images with score and label, and the true label where that is another: green if right, red if wrong.

    Args:
        images: [N, H, W, C] pixels of 0..255.
        scores: [N, K] in 0..1.
        truths: indices of the true labels of each image.
        labels: class names.

    Returns:
        uint8 [h, w, 3].
    """
    titles, colors = [], []
    for row, truth in zip(scores, truths, strict=True):
        chosen = [int(row.argmax())] if len(truth) == 1 else [int(k) for k in np.flatnonzero(row >= 0.5)]
        right = sorted(chosen) == sorted(truth)
        said, wanted = (", ".join(labels[k] for k in which) or "none" for which in (chosen, truth))
        facts = [f"{row[chosen[0]]:.2f}"] if len(chosen) == 1 else []
        titles.append((said, ", ".join([*facts, *([] if right else [f"true: {wanted}"])])))
        colors.append(RIGHT if right else WRONG)
    return image_grid(images, titles, colors)


def confusion_figure(matrix: np.ndarray, labels: Sequence[str], unit: str = "images") -> np.ndarray:
    """A confusion matrix, coloured by the share of its row, with counts where they can be read.

    Args:
        matrix: counts [K, K]; rows are the true class, columns the predicted one.
        labels: K class names.
        unit: what is counted; of anything but images, which are few, the cells have the share in percent.

    Returns:
        uint8 [h, w, 3].
    """
    classes = len(labels)
    side = float(np.clip(0.5 * classes + 2, 5, 12))
    figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    step = max(1, -(-classes // 25))
    ticks = range(0, classes, step)
    names = [labels[k] if len(labels[k]) <= 20 else labels[k][:17] + "..." for k in ticks]
    size = float(np.clip(220 / classes, 7, 9))
    axis.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=size)
    axis.set_yticks(ticks, names, fontsize=size)
    few = unit == "images"
    right = f"{np.trace(matrix)} of {matrix.sum()}" if few else f"{100 * np.trace(matrix) / max(matrix.sum(), 1):.1f} %"
    axis.set(xlabel="predicted", ylabel="true", title=f"{right} right" if few else f"{right} of the {unit} right")
    if classes <= NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.5 else "#111827"
            text = str(matrix[row, column]) if few else f"{100 * shares[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    return _pixels(figure)


def picture_grid(
    pictures: Sequence[Image.Image], titles: Sequence[str] = (), columns: int = 4, group: int = 1
) -> np.ndarray:
    """Pictures of any size in rows.

    Args:
        pictures: in RGB.
        titles: above each of them, or none at all.
        columns: pictures in a row.
        group: so many neighbours in a row belong together, and stand close to each other.

    Returns:
        uint8 [h, w, 3].
    """
    columns = min(columns, len(pictures))
    font = ImageFont.load_default(TEXT)
    width, head = max(picture.width for picture in pictures), TEXT + 4 if titles else 0
    lefts = [GAP + column * (width + FRAME) + column // group * GAP for column in range(columns)]
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) + head + GAP for row in rows]
    canvas = Image.new("RGB", (lefts[-1] + width + GAP, sum(heights) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for index, picture in enumerate(pictures):
        left, top = lefts[index % columns], GAP + sum(heights[: index // columns])
        if titles:
            pen.text((left, top), _fit(titles[index], font, width), fill=PLAIN, font=font)
        canvas.paste(picture, (left, top + head))
    return np.asarray(canvas)


def recall_figure(facts: Mapping[str, Any], title: str) -> np.ndarray:
    """Precision over recall of every class, with a dot where its F1 is highest.

    Args:
        facts: of `kerasvision.report.detector_facts`.
        title: above it.

    Returns:
        uint8 [h, w, 3].
    """
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axis = figure.subplots()
    classes = {label: each for label, each in facts["classes"].items() if each["objects"]}
    named = sorted(classes, key=lambda label: classes[label]["AP50"])[:NAMED_CURVES]
    for label, each in classes.items():
        curve = each["curve"]
        style = {"label": f"{label}: {100 * each['AP50']:.1f}"} if label in named else {"color": "0.8", "zorder": 1}
        (line,) = axis.plot(curve["recall"], curve["precision"], **style)
        if each["best"]:
            axis.plot(each["best"]["recall"], each["best"]["precision"], "o", color=line.get_color(), markersize=5)
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axis.grid(alpha=0.3)
    if classes:
        heading = "AP50 of each class" if len(named) == len(classes) else f"AP50, lowest {len(named)} of {len(classes)}"
        figure.legend(loc="outside right upper", title=heading, frameon=False)
    return _pixels(figure)


def error_figure(facts: Mapping[str, Any], title: str) -> np.ndarray:
    """Errors of each kind: what they cost, and how many there are from the score of the highest F1 on.

    Args:
        facts: of `kerasvision.report.detector_facts`.
        title: above it.

    Returns:
        uint8 [h, w, 3].
    """
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    figure.suptitle(title)
    point = facts["working_point"]
    counted = "errors, of all detections" if point is None else f"errors, from a score of {point['score']:.2g}"
    kinds = list(facts["errors"])
    for axis, values, heading, form in (
        (figure.add_subplot(121), [100 * (facts["errors"][kind]["cost"] or 0) for kind in kinds], "cost", "%.1f"),
        (figure.add_subplot(122), [facts["errors"][kind]["count"] for kind in kinds], counted, "%d"),
    ):
        bars = axis.barh(kinds, values, color="#2563eb")
        axis.bar_label(bars, fmt=form, padding=3)
        axis.set_title("cost, points of AP50" if heading == "cost" else heading, fontsize=10)
        axis.set_xlim(0, max(max(values) * 1.15, 1))
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    return _pixels(figure)


def _resized(pixels: np.ndarray, side: int) -> Image.Image:
    """The image, as large as fits into a square; small ones keep their sharp pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    factor = side / max(image.size)
    size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    return image.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _fit(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
