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
    ticks = nice_ticks(min(finite), max(finite))

    def x(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - 1) / (epochs - 1) if epochs > 1 else 0.5)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    last = ", ".join(f"{name} ends at {values[-1]:.4g}" for name, values in series.items() if len(values))
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{} by epoch: {}">').format(
            WIDTH, HEIGHT, title, last
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
    for epoch in _epoch_ticks(epochs):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(epoch), HEIGHT - BOTTOM + 16, epoch
            )
        )
    for number, (name, values) in enumerate(series.items()):
        parts.append(_line(number, [(x(epoch), y(value)) for epoch, value in enumerate(values, 1)]))
        if len(series) > 1:
            parts.append(_legend(number, name))
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">epoch</text></svg>').format(
            WIDTH - RIGHT, HEIGHT - 4
        )
    )
    return Markup("").join(parts)


def _legend(number: int, name: str) -> Markup:
    left = LEFT + 110 * number
    return Markup(
        '<rect class="key s{}" x="{}" y="{}" width="12" height="4" rx="2"/><text class="legend" x="{}" y="{}">{}</text>'
    ).format(number, left, HEIGHT - 10, left + 17, HEIGHT - 4, name)


def _epoch_ticks(epochs: int) -> list[int]:
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if epochs <= 8 * step)
    return sorted({1, epochs, *range(step, epochs - step // 2, step)})


def _line(number: int, points: Sequence[tuple[float, float]]) -> Markup:
    runs: list[list[str]] = [[]]
    for px, py in points:
        if math.isfinite(py):
            runs[-1].append(f"{px:.1f},{py:.1f}")
        elif runs[-1]:
            runs.append([])
    lines = [
        Markup('<polyline class="line s{}" points="{}"/>').format(number, " ".join(run)) for run in runs if len(run) > 1
    ]
    if len(points) <= 30:  # A dot for each epoch, while they can be told apart; a single epoch has nothing else.
        lines += [
            Markup('<circle class="dot s{}" cx="{}" cy="{}" r="2.5"/>').format(number, *point.split(","))
            for run in runs
            for point in run
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
