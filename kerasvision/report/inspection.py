"""`inspect`: everything worth knowing about a data set before a net is trained on it."""

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.boxes import AnchorFit, fit_anchors, measure_anchors
from kerasvision.data import Data, load_data, repetitions
from kerasvision.data import findings as rules
from kerasvision.data import statistics as numbers
from kerasvision.data.duplicates import Duplicates, find_duplicates, leaks
from kerasvision.data.findings import Finding
from kerasvision.data.listing import spread
from kerasvision.data.scan import ImageScan, scan_images
from kerasvision.files import write_text

ANCHOR_SIDE = 640
ANCHOR_COUNTS = (5, 9)


@dataclasses.dataclass(frozen=True, eq=False)
class BoxReport:
    """What was found out about boxes.

    Args:
        table: all boxes.
        problems: kind -> indices of boxes, from `kerasvision.data.statistics.box_problems`.
        sizes: float64 [M', 2], width and height of the boxes that are sound and no crowds, in pixels.
        anchors: number of anchors -> (float64 [k, 2], how well they fit), for images whose longer side is 640.
        centres: int64 [32, 32], how many boxes have their centre where.
        keypoints: int64 [P, 3], how often each keypoint is absent, hidden, visible; None where there are none.
    """

    table: numbers.BoxTable
    problems: dict[str, np.ndarray]
    sizes: np.ndarray
    anchors: dict[int, tuple[np.ndarray, AnchorFit]]
    centres: np.ndarray
    keypoints: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class DataReport:
    """What `inspect` found out.

    Args:
        data: the set, with the examples that were looked at.
        scan: of the images.
        duplicates: images that are the same, or look the same.
        leaked: from `kerasvision.data.duplicates.leaks`.
        unit: what is counted by class: "labels", "boxes" or "pixels".
        counts: by split and class.
        boxes: None where the set has none.
        maps: None where the set has no class maps.
        findings: worst first.
    """

    data: Data
    scan: ImageScan
    duplicates: Duplicates
    leaked: dict[tuple[str, str], np.ndarray]
    unit: str
    counts: numbers.ClassCounts
    boxes: BoxReport | None
    maps: numbers.ClassMaps | None
    findings: list[Finding]

    @property
    def examples(self) -> list[dict[str, Any]]:
        """All examples, in the order of `scan`."""
        return [example for examples in self.data.splits.values() for example in examples]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report as one HTML page that loads nothing.

        Args:
            path: of the page.

        Returns:
            The path.
        """
        from kerasvision.report.data_page import render

        path = Path(path)
        write_text(path, render(self))
        return path

    def to_dict(self) -> dict[str, Any]:
        """The numbers, in types that JSON knows."""
        return {
            "source": self.data.source,
            "labels": [str(label) for label in self.data.labels],
            "splits": {name: len(examples) for name, examples in self.data.splits.items()},
            "findings": [found.to_dict() for found in self.findings],
            "classes": self._classes(),
            "images": self._images(),
            "boxes": self._boxes(),
            "void_share": float(self.maps.void.mean()) if self.maps is not None and len(self.maps.void) else None,
            "duplicates": {
                "copies": sum(len(group) - 1 for group in self.duplicates.exact),
                "look_alike_pairs": len(self.duplicates.near),
                "leaks": {
                    f"{first}, {second}": len(np.unique(pairs[:, 1])) for (first, second), pairs in self.leaked.items()
                },
            },
        }

    def _classes(self) -> dict[str, Any]:
        names = [str(label) for label in self.data.labels]
        return {
            "unit": self.unit,
            "splits": {
                split: dict(zip(names, map(int, row), strict=True))
                for split, row in zip(self.counts.splits, self.counts.objects, strict=True)
            },
            "imbalance_ratio": numbers.imbalance_ratio(self.counts.objects.sum(axis=0)),
            "effective_classes": numbers.effective_classes(self.counts.objects.sum(axis=0)),
        }

    def _images(self) -> dict[str, Any]:
        known = self.scan.sizes[(self.scan.sizes > 0).all(axis=1)]
        ranked = known[np.argsort(known.prod(axis=1, dtype=np.int64), kind="stable")]
        at = {"smallest": 0, "median": len(known) // 2, "largest": -1} if len(known) else {}
        return {
            "sizes": {name: ranked[index].tolist() for name, index in at.items()},
            "formats": _counted(self.scan.formats),
            "modes": _counted(self.scan.modes),
            "orientations": _counted(self.scan.orientations.tolist()),
        }

    def _boxes(self) -> dict[str, Any] | None:
        if self.boxes is None:
            return None
        return {
            "boxes": len(self.boxes.table.boxes),
            "crowds": int(self.boxes.table.crowd.sum()),
            "per_image": _counted(self.boxes.table.per_image.tolist()),
            "sizes": numbers.area_shares(self.boxes.sizes),
            "problems": {kind: len(indices) for kind, indices in self.boxes.problems.items()},
            "anchors": {
                str(count): {"sizes": np.round(anchors, 1).tolist(), **dataclasses.asdict(fit)}
                for count, (anchors, fit) in self.boxes.anchors.items()
            },
            "keypoints": None if self.boxes.keypoints is None else self.boxes.keypoints.tolist(),
        }


def _counted(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items()) if value != ""}


def inspect(
    data: Data | str | os.PathLike[str], format: str | None = None, *, limit: int | None = None, seed: int = 0
) -> DataReport:
    """Looks through a data set: classes, image and box sizes, broken files, odd boxes, duplicates and leakage.

    Every image is decoded once, as small as its format allows; memory grows by about a kilobyte for each image.

    Args:
        data: a set of any kind, or what `load_data` takes; it is then not divided further, and files that cannot
            be used are listed.
        format: as in `load_data`.
        limit: at most so many images of each split, evenly spread.
        seed: of the anchors.

    Returns:
        The report; its `save` writes a page.

    Raises:
        DataError: the set cannot be read at all.
    """
    if not isinstance(data, Data):
        data = load_data(data, format, validation_fraction=0.0, on_bad_files="skip", limit=limit)
    splits = {
        name: [examples[index] for index in spread(len(examples), limit)] for name, examples in data.splits.items()
    }
    data = dataclasses.replace(data, splits=splits)
    examples = [example for part in splits.values() for example in part]
    scan = scan_images(splits)
    usable = np.array([index not in scan.broken for index in range(len(scan))], bool)
    duplicates = find_duplicates(scan.digests, scan.thumbnails, usable)
    leaked = leaks(duplicates, scan.splits)
    count = len(data.labels)
    first: dict[str, Any] = examples[0] if examples else {}
    boxes = _look_at_boxes(data, scan, seed) if "boxes" in first else None
    maps = numbers.count_pixels(splits, count) if "segmentation" in first else None
    counts, unit = numbers.count_classes(splits, count), "labels" if boxes is None else "boxes"
    if maps is not None and boxes is None and not counts.objects.any():
        counts, unit = numbers.ClassCounts(tuple(splits), maps.pixels, maps.images), "pixels"
    found = [
        *rules.about_splits({name: len(part) for name, part in splits.items()}),
        *repetitions.about_groups(splits),
        *repetitions.about_duplicates(duplicates, leaked, scan, examples),
        *rules.about_files(scan, data.skipped),
        *(rules.about_boxes(boxes.table, boxes.problems, scan.names) if boxes is not None else ()),
        *(rules.about_maps(maps, scan.names) if maps is not None else ()),
        *rules.about_classes(counts, data.labels, unit),
    ]
    return DataReport(data, scan, duplicates, leaked, unit, counts, boxes, maps, rules.worst_first(found))


def _look_at_boxes(data: Data, scan: ImageScan, seed: int) -> BoxReport:
    table = numbers.collect_boxes(data.splits)
    problems = numbers.box_problems(table, scan.sizes)
    sound = ~table.crowd
    sound[problems["degenerate"]] = False
    sizes = table.sizes()[sound]
    sides = scan.sizes[table.images[sound]].max(axis=1, initial=0)
    # In the pixels of an image that is brought to a fixed size, as a net sees it.
    scaled = sizes[sides > 0] * (ANCHOR_SIDE / sides[sides > 0])[:, None]
    anchors = {}
    for count in ANCHOR_COUNTS if len(scaled) else ():
        fitted = fit_anchors(scaled, count, seed)
        anchors[count] = fitted, measure_anchors(scaled, fitted)
    points = len(data.keypoint_names)
    examples = [example for part in data.splits.values() for example in part]
    if examples and "keypoints" in examples[0] and not points:
        points = np.shape(examples[0]["keypoints"])[1]
    return BoxReport(
        table=table,
        problems=problems,
        sizes=sizes,
        anchors=anchors,
        centres=numbers.centre_map(table, scan.sizes),
        keypoints=numbers.count_keypoints(examples, points) if points else None,
    )
