"""Distributions as inline SVG: bars of a histogram, and bubbles of pairs of numbers."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from kerasvision.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, nice_ticks

_MOST_BUBBLES = 400
_CELLS = 40
_TICKS = 8


def histogram(values: np.ndarray, log: bool = False, bins: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Counts of values in bins of equal width, or of equal ratio.

    Whole numbers of a small range get a bin each; without `log` the edges are round numbers.

    Args:
        values: [N], finite; above 0 where `log`.
        log: bins of equal ratio.
        bins: about so many.

    Returns:
        Edges [B + 1] and counts int64 [B]; every value lies in a bin. Empty where there are no values.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return np.zeros(0), np.zeros(0, np.int64)
    low, high = float(values.min()), float(values.max())
    if log:
        # Steps that divide an octave, from a whole one on: halves and doubles are then edges.
        octaves = math.log2(high / low)
        step = next(step for step in (1 / 8, 1 / 4, 1 / 2, 1.0, octaves) if octaves <= step * bins)
        first, last = math.floor(math.log2(low) / step), math.floor(math.log2(high) / step) + 1
        edges = 2.0 ** (step * np.arange(first, last + 1))
    elif (values == np.rint(values)).all() and high - low < bins:
        edges = np.arange(low, high + 2)
    else:
        edges = np.array(nice_ticks(low, high, bins))
    return edges, np.histogram(values, edges)[0]


def bar_chart(title: str, edges: np.ndarray, counts: np.ndarray, axis: str, unit: str = "images") -> Markup:
    """A histogram; bins are drawn equally wide, whatever they cover.

    Args:
        title: accessible name.
        edges: [B + 1], rising; whole numbers one apart stand below the middle of their bar.
        counts: [B].
        axis: what the bins are of.
        unit: what is counted.

    Returns:
        An <svg> element; nothing where there are no bins.
    """
    if not len(counts):
        return Markup("")
    ticks = nice_ticks(0, float(counts.max()) or 1)
    single = bool((edges == np.rint(edges)).all() and (np.diff(edges) == 1).all())
    room = (WIDTH - LEFT - RIGHT) / len(counts)
    parts = [_open(f"{title}: {int(counts.sum()):,} {unit}"), *_rows(ticks)]
    for index, count in enumerate(counts):
        top = _y(count, ticks)
        name = f"{edges[index]:.6g}" if single else f"{edges[index]:.4g} to {edges[index + 1]:.4g}"
        parts.append(
            Markup(
                '<g><title>{}</title><rect class="fill" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/></g>'
            ).format(
                f"{name}: {count:,} {unit}",
                LEFT + index * room + min(room / 8, 1),
                top,
                max(room - 2 * min(room / 8, 1), 0.5),
                HEIGHT - BOTTOM - top,
            )
        )
    for index in _labelled(edges, single):
        parts.append(_tick(LEFT + (index + 0.5 * single) * room, _number(edges[index], False)))
    parts.append(_axis(axis))
    return Markup("").join(parts)


def _labelled(edges: np.ndarray, single: bool) -> range | list[int]:
    """Which edges get a number: of equal ratios the powers of two, else every n-th."""
    octaves = np.log2(np.maximum(edges, 1e-9))
    powers = [int(index) for index in np.flatnonzero(np.abs(octaves - np.rint(octaves)) < 1e-6)]
    if len(powers) > 1 and np.ptp(np.diff(octaves)) < 1e-6:
        return powers[:: math.ceil(len(powers) / _TICKS)]
    shown = len(edges) - single
    return range(0, shown, math.ceil(shown / _TICKS))


def bubble_chart(
    title: str, points: np.ndarray, axes: tuple[str, str], log: bool = False, unit: str = "images"
) -> Markup:
    """Pairs of numbers: a bubble for each pair, its area the number of times it occurs.

    More than 400 different pairs are counted in cells.

    Args:
        title: accessible name.
        points: [N, 2], finite; above 0 where `log`.
        axes: what the first and the second number are.
        log: equal ratios are equally far apart.
        unit: what is counted.

    Returns:
        An <svg> element; nothing where there are no points.
    """
    if not len(points):
        return Markup("")
    scaled = np.log2(points) if log else np.asarray(points, np.float64)
    ticks = [_log_ticks(column) if log else nice_ticks(0, float(column.max())) for column in scaled.T]
    spots, counts = np.unique(scaled, axis=0, return_counts=True)
    if len(spots) > _MOST_BUBBLES:
        low, high = (np.array([end[which] for end in ticks]) for which in (0, -1))
        cells = np.clip((scaled - low) / (high - low) * _CELLS, 0, _CELLS - 1).astype(int)
        spots, counts = np.unique(cells, axis=0, return_counts=True)
        spots = low + (spots + 0.5) / _CELLS * (high - low)
    parts = [_open(f"{title}: {len(points):,} {unit}"), *_rows(ticks[1], log)]
    wide = WIDTH - LEFT - RIGHT
    for tick in ticks[0]:
        x = LEFT + wide * (tick - ticks[0][0]) / (ticks[0][-1] - ticks[0][0])
        parts.append(_tick(x, _number(tick, log)))
    largest = 9 if len(spots) <= 60 else 5
    for (x, y), count in sorted(zip(spots.tolist(), counts.tolist(), strict=True), key=lambda spot: -spot[1]):
        parts.append(
            Markup('<g><title>{}</title><circle class="bubble" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/></g>').format(
                f"{_number(x, log)} x {_number(y, log)}: {count:,} {unit}",
                LEFT + wide * (x - ticks[0][0]) / (ticks[0][-1] - ticks[0][0]),
                _y(y, ticks[1]),
                max(largest * math.sqrt(count / counts.max()), 1.2),
            )
        )
    parts.append(_axis(f"{axes[0]} across, {axes[1]} up"))
    return Markup("").join(parts)


def _log_ticks(values: np.ndarray) -> list[float]:
    """Whole powers of two around logarithms, at most nine of them."""
    low, high = math.floor(values.min()), math.ceil(values.max())
    if low == high:
        low, high = low - 1, high + 1
    step = math.ceil((high - low) / _TICKS)
    return [float(power) for power in range(low, high + step, step)]


def _number(value: float, log: bool) -> str:
    value = 2.0**value if log else value
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def _open(label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)


def _y(value: float, ticks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _rows(ticks: Sequence[float], log: bool = False) -> list[Markup]:
    lines = []
    for tick in ticks:
        y = _y(tick, ticks)
        line = '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        text = '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        lines.append(Markup(line).format(LEFT, WIDTH - RIGHT, y, y))
        lines.append(Markup(text).format(LEFT - 6, y + 4, _number(tick, log)))
    return lines


def _tick(x: float, text: str) -> Markup:
    anchor = "end" if x > WIDTH - RIGHT - 4 else "middle"
    return Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
        x, HEIGHT - BOTTOM + 16, anchor, text
    )


def _axis(text: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text></svg>').format(
        WIDTH - RIGHT, HEIGHT - 4, text
    )
