"""The page of a data set: fills the template from a `DataReport`."""

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

import kerasvision
from kerasvision.data.duplicates import connected
from kerasvision.data.listing import spread
from kerasvision.data.statistics import (
    area_shares,
    classes_of,
    effective_classes,
    effective_numbers,
    imbalance_ratio,
)
from kerasvision.errors import DataError
from kerasvision.report import charts, plots, tables
from kerasvision.report.examples import data_uri, draw_example, thumbnail
from kerasvision.report.inspection import ANCHOR_SIDE, BoxReport, DataReport
from kerasvision.report.page import environment

SAMPLES = 24
SHOWN = 12  # The others are folded away.
PAIRS = 18
_KINDS = {
    "error": "Spoils training or its figures",
    "warning": "May spoil training or its figures",
    "note": "Good to know",
}


def render(report: DataReport) -> str:
    """The page as HTML.

    Args:
        report: of any kind of set.
    """
    data, scan = report.data, report.scan
    totals = report.counts.objects.sum(axis=0)
    return (
        environment()
        .get_template("data.html.j2")
        .render(
            version=kerasvision.__version__,
            date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            source=data.source or "a data set",
            name=Path(data.source).name if data.source else "Data set",
            kinds=kinds_of(report),
            cards=_cards(report),
            levels=[
                (_KINDS[level], [found for found in report.findings if found.level == level])
                for level in _KINDS
                if any(found.level == level for found in report.findings)
            ],
            shown=SHOWN if report.boxes is not None or report.maps is not None else SAMPLES,
            samples=[picture for index in choose_samples(report) if (picture := _sample(report, index))],
            drawn=report.boxes is not None or report.maps is not None,
            unit=report.unit,
            splits=report.counts.splits,
            classes=_class_rows(report),
            ratio=imbalance_ratio(totals),
            effective=effective_classes(totals),
            ranks=_rank_chart(totals) if len(totals) > tables.LARGEST_TABLE else None,
            image_charts=_image_charts(report),
            modes=report.to_dict()["images"],
            boxes=_box_parts(report.boxes, data.keypoint_names) if report.boxes is not None else None,
            void=report.maps.void if report.maps is not None and len(report.maps.void) else None,
            pairs=_pairs(report),
            pair_count=len(report.duplicates.pairs()),
            skipped=[str(file) for file in [*data.skipped, *scan.broken.values()]],
            bar=charts.bar,
            percent=tables.percent,
        )
    )


def kinds_of(report: DataReport) -> str:
    """What is known about the images, such as "boxes, masks"."""
    first: dict[str, Any] = report.examples[0] if report.examples else {}
    names = {
        "label": "one label an image",
        "labels": "any number of labels an image",
        "boxes": "boxes",
        "masks": "instance masks",
        "keypoints": "keypoints",
        "segmentation": "class maps",
    }
    return ", ".join(name for key, name in names.items() if key in first)


def _cards(report: DataReport) -> list[dict[str, str]]:
    splits = {name: len(examples) for name, examples in report.data.splits.items()}
    copies = sum(len(group) - 1 for group in report.duplicates.exact)
    errors = sum(found.level == "error" for found in report.findings)
    warnings = sum(found.level == "warning" for found in report.findings)
    cards = [
        ("Images", f"{sum(splits.values()):,}", " · ".join(f"{name} {count:,}" for name, count in splits.items())),
        ("Classes", f"{len(report.data.labels):,}", f"{report.counts.objects.any(axis=0).sum():,} of them occur"),
    ]
    if report.boxes is not None:
        count = len(report.boxes.table.boxes)
        per_image = f"{count / max(len(report.scan), 1):.1f} an image"
        cards.append(("Boxes", f"{count:,}", per_image))
    cards.append(("Copies", f"{copies:,}", f"and {len(report.duplicates.near):,} pairs that look alike"))
    cards.append(("Errors found", f"{errors:,}", f"and {warnings:,} warnings"))
    return [{"title": title, "value": value, "note": note} for title, value, note in cards]


def _class_rows(report: DataReport) -> list[dict[str, Any]]:
    """One row for each class; beyond 20 classes the most frequent first."""
    objects, images = report.counts.objects, report.counts.images
    shares = objects / np.maximum(objects.sum(axis=1, keepdims=True), 1)
    largest = max(float(shares.max(initial=0)), 1e-9)
    worth = effective_numbers(images.sum(axis=0))
    order = np.arange(objects.shape[1])
    if len(order) > tables.LARGEST_TABLE:
        order = np.argsort(-objects.sum(axis=0), kind="stable")
    return [
        {
            "label": str(report.data.labels[index]),
            "cells": [
                (int(objects[row, index]), float(shares[row, index]), float(shares[row, index]) / largest)
                for row in range(len(objects))
            ],
            "images": int(images[:, index].sum()),
            "worth": float(worth[index]),
        }
        for index in order
    ]


def _rank_chart(totals: np.ndarray) -> Markup:
    """How long the tail is: count over rank, both in equal ratios, where a power law is a straight line."""
    ordered = np.sort(totals[totals > 0])[::-1]
    points = np.stack([np.arange(1, len(ordered) + 1), ordered], axis=1)
    return plots.bubble_chart("Classes by frequency", points, ("rank", "count"), log=True, unit="classes")


def choose_samples(report: DataReport, count: int = SAMPLES) -> list[int]:
    """Images for the grid, spread over the classes and within each of them.

    Args:
        report: of the set.
        count: at most so many.

    Returns:
        Indices of readable images, each once.
    """
    readable = [index for index in range(len(report.scan)) if index not in report.scan.broken]
    members: dict[int, list[int]] = {}
    examples = report.examples
    for index in readable:
        for label in set(classes_of(examples[index]).tolist()):
            members.setdefault(label, []).append(index)
    if not members:
        return [readable[index] for index in spread(len(readable), count)]
    # The rarest class first: its few images are then not taken for another one.
    labels = sorted(members, key=lambda label: (len(members[label]), label))
    labels = [labels[index] for index in spread(len(labels), count)]
    each = -(-count // len(labels))
    chosen: dict[int, None] = {}
    for turn in range(each):
        for label in labels:
            free = [index for index in members[label] if index not in chosen]
            if free and len(chosen) < count:
                chosen[free[len(free) * turn // each]] = None
    rest = [index for index in readable if index not in chosen]
    missing = min(count - len(chosen), len(rest))
    return [*chosen, *(rest[index] for index in spread(len(rest), missing))] if missing else list(chosen)


def _sample(report: DataReport, index: int) -> dict[str, Any] | None:
    example, labels = report.examples[index], [str(label) for label in report.data.labels]
    name, split = report.scan.names[index], report.scan.splits[index]
    named = ", ".join(labels[label] for label in dict.fromkeys(classes_of(example).tolist()))
    try:
        if "boxes" in example or "segmentation" in example:
            source = data_uri(draw_example(example, labels))
        else:
            source = thumbnail(example["image"])
    except DataError:  # Listed among the broken files, or the masks that cannot be read.
        return None
    return {"source": source, "label": named, "split": split, "name": _short(name)}


def _short(name: str) -> str:
    """A file's name with its folder: the whole path rarely helps, and the name alone is often not unique."""
    return "/".join(Path(name).parts[-2:])


def _image_charts(report: DataReport) -> list[tuple[str, Markup]]:
    sizes = report.scan.sizes[(report.scan.sizes > 0).all(axis=1)]
    if len(np.unique(sizes, axis=0)) < 2:
        return []
    widths_heights = sizes[:, ::-1]
    edges, counts = plots.histogram(widths_heights[:, 0] / widths_heights[:, 1], log=True)
    return [
        ("sizes", plots.bubble_chart("Image sizes", widths_heights, ("width", "height"))),
        ("aspect ratios", plots.bar_chart("Aspect ratios", edges, counts, "width / height")),
    ]


def _box_parts(boxes: BoxReport, keypoint_names: Sequence[str]) -> dict[str, Any]:
    edges, counts = plots.histogram(boxes.table.per_image)
    ratio_edges, ratio_counts = plots.histogram(boxes.sizes[:, 0] / boxes.sizes[:, 1], log=True)
    found = [
        ("objects in an image", plots.bar_chart("Objects in an image", edges, counts, "objects")),
        ("box sizes in pixels", plots.bubble_chart("Box sizes", boxes.sizes, ("width", "height"), True, "boxes")),
        ("box aspect ratios", plots.bar_chart("Aspect ratios", ratio_edges, ratio_counts, "width / height", "boxes")),
    ]
    peak = boxes.centres.max(initial=0)
    heat = charts.heat_image(boxes.centres / peak, "Centres of the boxes in the image") if peak else None
    keypoints = [] if boxes.keypoints is None else boxes.keypoints.tolist()
    names = [str(name) for name in keypoint_names or range(len(keypoints))]
    return {
        "charts": [(title, chart) for title, chart in found if chart],
        "heat": heat,
        "shares": area_shares(boxes.sizes) if len(boxes.sizes) else None,
        "anchors": [
            (count, [f"{width:.0f} x {height:.0f}" for width, height in anchors], fit)
            for count, (anchors, fit) in boxes.anchors.items()
        ],
        "anchor_side": ANCHOR_SIDE,
        "crowds": int(boxes.table.crowd.sum()),
        "keypoints": list(zip(names, keypoints, strict=True)) if keypoints else [],
    }


def _pairs(report: DataReport) -> list[dict[str, Any]]:
    """Pairs of duplicates with pictures: those across splits first, then those with different labels."""
    scan, examples = report.scan, report.examples
    distances = {
        tuple(pair): int(bits)
        for pair, bits in zip(report.duplicates.near.tolist(), report.duplicates.distances, strict=True)
    }
    # Of the frames of one scene one pair is enough, as long as their labels agree.
    pairs = report.duplicates.pairs()
    groups = connected(pairs, len(scan))
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    across: list[tuple[int, ...]] = []
    for leaking in report.leaked.values():
        across += {group_of[row[0]]: tuple(row) for row in reversed(leaking.tolist())}.values()
    within = [tuple(row) for row in pairs.tolist()]
    differ = [pair for pair in within if report.boxes is None and _differ(examples, pair)]
    firsts = {group_of[pair[0]]: pair for pair in reversed(within)}
    within = [*differ, *(firsts[number] for number in sorted(firsts))]
    shown: dict[frozenset[int], dict[str, Any]] = {}
    for pair in [*across, *within]:
        key = frozenset(pair)
        if len(shown) == PAIRS:
            break
        if key not in shown and (pictures := _pictures(report, pair)):
            bits = distances.get((min(pair), max(pair)))
            kind = "equal" if bits is None else f"look alike ({bits} of 64 bits differ)"
            leak = scan.splits[pair[0]] != scan.splits[pair[1]]
            size = len(groups[group_of[pair[0]]])
            shown[key] = {"kind": kind, "leak": leak, "size": size, "pictures": pictures}
    return list(shown.values())


def _differ(examples: Sequence[dict[str, Any]], pair: Sequence[int]) -> bool:
    first, second = (sorted(classes_of(examples[index]).tolist()) for index in pair)
    return first != second


def _pictures(report: DataReport, pair: Iterable[int]) -> list[dict[str, str]]:
    labels, found = report.data.labels, []
    for index in pair:
        counted = np.unique(classes_of(report.examples[index]), return_counts=True)
        named = ", ".join(
            f"{labels[label]}{f' x {count}' if count > 1 else ''}" for label, count in zip(*counted, strict=True)
        )
        try:
            source = thumbnail(report.examples[index]["image"])
        except DataError:
            return []
        found.append(
            {
                "source": source,
                "label": named,
                "split": report.scan.splits[index],
                "name": _short(report.scan.names[index]),
            }
        )
    return found
