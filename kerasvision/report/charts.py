"""Charts as inline SVG, drawn by small pure functions; colours come from the page's style sheet."""

import base64
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 40
HEAT_RGB = (37, 99, 235)
# Lines that the style sheet can tell apart.
COLOURS = 8
# Of a legend: height of a row, about the width of a letter, and the most letters of a name.
_ROW, _LETTER, _LONGEST = 16, 5.9, 26


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low..high, about `count` of them (Heckbert, Graphics Gems, 1990).

    Args:
        low: smallest value.
        high: largest value.
        count: how many ticks to aim at.

    Returns:
        Rising ticks; the first is <= low and the last >= high.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def line_chart(title: str, series: Mapping[str, Sequence[float]]) -> Markup:
    """Values by epoch, one line for each series.

    Args:
        title: what is measured; also the chart's accessible name.
        series: name -> value of each epoch; values that are not finite leave a gap.

    Returns:
        An <svg> element.
    """
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    epochs = max((len(values) for values in series.values()), default=0)
    if not finite:
        return Markup("")
    last = ", ".join(f"{name} ends at {values[-1]:.4g}" for name, values in series.items() if len(values))
    width = WIDTH - LEFT - RIGHT

    def x(epoch: int) -> float:
        return LEFT + width * ((epoch - 1) / (epochs - 1) if epochs > 1 else 0.5)

    return _chart(
        f"{title} by epoch: {last}",
        {name: [(x(epoch), value) for epoch, value in enumerate(values, 1)] for name, values in series.items()},
        nice_ticks(min(finite), max(finite)),
        [(x(epoch), str(epoch)) for epoch in _epoch_ticks(epochs)],
        "epoch",
    )


def share_chart(
    title: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    marks: Mapping[str, tuple[float, float]],
    axes: tuple[str, str],
) -> Markup:
    """Shares over shares, both 0..1, such as precision over recall.

    Args:
        title: also the chart's accessible name.
        curves: name -> (values to the right, values up), in the order in which a line joins them.
        marks: name -> a point of its curve.
        axes: what is to the right, and what is up.

    Returns:
        An <svg> element; nothing where there is no curve.
    """
    if not curves:
        return Markup("")

    def x(share: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    ticks = [index / 5 for index in range(6)]
    return _chart(
        f"{title}: {', '.join(curves)}",
        {name: [(x(right), up) for right, up in zip(*curve, strict=True)] for name, curve in curves.items()},
        ticks,
        [(x(tick), f"{tick:g}") for tick in ticks],
        f"{axes[0]} across, {axes[1]} up",
        {name: (x(right), up) for name, (right, up) in marks.items()},
    )


def _chart(
    label: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ticks: Sequence[float],
    bottom: Sequence[tuple[float, str]],
    axis: str,
    marks: Mapping[str, tuple[float, float]] | None = None,
) -> Markup:
    """Lines in a frame.

    Args:
        label: accessible name.
        lines: name -> (place from the left in pixels, value).
        ticks: rising; the first and the last are the ends of the axis of values.
        bottom: (place from the left in pixels, text).
        axis: what the bottom is of.
        marks: name -> a point to mark; None marks every point of lines that have few.
    """
    legend, rows = _legend(list(lines), axis) if len(lines) > 1 else ([], 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT + _ROW * (rows - 1), label
        )
    ]
    for tick in ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y(tick), y(tick)
            )
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 6, y(tick) + 4, f"{tick:.6g}"
            )
        )
    for place, text in bottom:
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                place, HEIGHT - BOTTOM + 16, text
            )
        )
    for number, (name, points) in enumerate(lines.items()):
        placed = [(place, y(value)) for place, value in points]
        if marks is not None:
            dots = [(marks[name][0], y(marks[name][1]))] if name in marks else []
        else:  # A dot for each epoch, while they can be told apart; a single epoch has nothing else.
            dots = placed if len(placed) <= 30 else []
        parts.append(_line(number % COLOURS, placed, dots))
    parts += legend
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text></svg>').format(
            WIDTH - RIGHT, HEIGHT - 4, axis
        )
    )
    return Markup("").join(parts)


def _legend(names: Sequence[str], axis: str) -> tuple[list[Markup], int]:
    """Keys with names, and the rows they take; the first row ends before the name of the axis."""
    parts: list[Markup] = []
    left, row = float(LEFT), 0
    for number, name in enumerate(names):
        text = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
        wide = 17 + _LETTER * len(text)
        end = WIDTH - RIGHT - (0 if row else _LETTER * len(axis) + 12)
        if left + wide > end and (left > LEFT or not row):
            left, row = LEFT, row + 1
        low = HEIGHT - 4 + _ROW * row
        parts.append(
            Markup(
                '<rect class="key s{}" x="{:.0f}" y="{}" width="12" height="4" rx="2"/>'
                '<text class="legend" x="{:.0f}" y="{}">{}</text>'
            ).format(number % COLOURS, left, low - 6, left + 17, low, text)
        )
        left += wide + 14
    return parts, row + 1


def _epoch_ticks(epochs: int) -> list[int]:
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if epochs <= 8 * step)
    return sorted({1, epochs, *range(step, epochs - step // 2, step)})


def _line(number: int, points: Sequence[tuple[float, float]], dots: Sequence[tuple[float, float]]) -> Markup:
    runs: list[list[str]] = [[]]
    for px, py in points:
        if math.isfinite(py):
            runs[-1].append(f"{px:.1f},{py:.1f}")
        elif runs[-1]:
            runs.append([])
    lines = [
        Markup('<polyline class="line s{}" points="{}"/>').format(number, " ".join(run)) for run in runs if len(run) > 1
    ]
    lines += [
        Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(number, px, py)
        for px, py in dots
        if math.isfinite(py)
    ]
    return Markup("").join(lines)


def bar(share: float, kind: str = "neutral") -> Markup:
    """A bar that is `share` (0..1) full; decoration beside a number, so screen readers skip it."""
    percent = 100 * min(max(share, 0.0), 1.0)
    return Markup('<span class="bar" aria-hidden="true"><span class="{}" style="width:{:.1f}%"></span></span>').format(
        kind, percent
    )


def heat_image(shares: np.ndarray, title: str) -> Markup:
    """A table too large for numbers, as an image whose opacity is the value.

    Args:
        shares: [H, W] in 0..1, such as the `row_shares` of a confusion matrix.
        title: alternative text.

    Returns:
        An <img> element with a data URI.
    """
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = HEAT_RGB
    # The square root lifts rare values above what an eye can see.
    pixels[..., 3] = np.rint(255 * np.sqrt(shares))
    factor = max(1, round(600 / max(len(shares), 1)))
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    uri = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img class="heat" src="data:image/png;base64,{}" alt="{}">').format(uri, escape(title))


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Each count as a share of its row, [K, K] in 0..1; rows of absent classes stay zero."""
    totals = matrix.sum(axis=1, keepdims=True)
    return matrix / np.maximum(totals, 1)
