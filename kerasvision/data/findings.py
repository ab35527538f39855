"""What is wrong with a set, in sentences: each finding with its images and a remedy, worst first."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from kerasvision.data.inspect import BadFile
from kerasvision.data.scan import ImageScan, misnamed
from kerasvision.data.statistics import BoxTable, ClassCounts, ClassMaps, imbalance_ratio

SHOWN = 20
FEW_IMAGES = 10
UNBALANCED = 10.0
MUCH_VOID = 0.5
STRETCHED = 4.0
_LEVELS = ("error", "warning", "note")

Level = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to know before training.

    Args:
        level: "error" spoils training or its figures, "warning" may, "note" is good to know.
        text: what was found, with its number.
        remedy: what to do about it.
        names: the first 20 files, pairs of files or classes it is about.
        count: of how many.
    """

    level: Level
    text: str
    remedy: str
    names: tuple[str, ...] = ()
    count: int = 0

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        return {**dataclasses.asdict(self), "names": list(self.names)}


def finding(level: Level, text: str, remedy: str, names: Iterable[str]) -> Finding:
    """A finding about some names, of which it keeps the first 20."""
    names = list(names)
    return Finding(level, text, remedy, tuple(names[:SHOWN]), len(names))


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, warnings, notes; in each level in the order they were found."""
    return sorted(findings, key=lambda found: _LEVELS.index(found.level))


def about_files(scan: ImageScan, skipped: Sequence[BadFile]) -> list[Finding]:
    """Broken, left out, misnamed and turned files, and images that are odd among the others."""
    found = []
    if scan.broken:
        found.append(
            finding(
                "error",
                f"{counted(len(scan.broken), 'image')} cannot be read",
                "Fetch them again, or remove them from the set.",
                map(str, scan.broken.values()),
            )
        )
    if skipped:
        found.append(
            finding(
                "error",
                f"{counted(len(skipped), 'unusable file was', 'unusable files were')} left out",
                "Repair them, or remove them from the set.",
                map(str, skipped),
            )
        )
    wrong = misnamed(scan)
    if wrong:
        found.append(
            finding(
                "warning",
                f"{counted(len(wrong), 'file has', 'files have')} a suffix of another format",
                "They are read by their content; rename them before other programs stumble.",
                (f"{scan.names[index]}: is {scan.formats[index]}" for index in wrong),
            )
        )
    readable = np.array([index not in scan.broken for index in range(len(scan))], bool)
    even = readable & (scan.thumbnails == scan.thumbnails[:, :1, :1]).all(axis=(1, 2))
    single = (scan.sizes == 1).all(axis=1)
    _add(
        found,
        even & ~single,
        scan.names,
        "warning",
        "{} of a single colour",
        "Remove them: there is nothing to see in them.",
    )
    ratios = scan.sizes.max(axis=1, initial=1) / np.maximum(scan.sizes.min(axis=1, initial=1 << 30), 1)
    _add(
        found,
        readable & (ratios >= STRETCHED),
        [f"{name}: {width} x {height}" for name, (height, width) in zip(scan.names, scan.sizes, strict=True)],
        "note",
        f"{{}} at least {STRETCHED:g} times as long as wide",
        'Stretched into a square they lose their shape: use preprocessing fit="letterbox", or cut them into tiles.',
    )
    _add(
        found,
        scan.orientations != 1,
        scan.names,
        "note",
        "{} stored turned, with an EXIF tag that says so",
        "They are set upright here; programs that ignore the tag see them, and their boxes, turned.",
    )
    modes = {mode for mode in scan.modes if mode}
    if len(modes) > 1:
        counts = {mode: scan.modes.count(mode) for mode in sorted(modes)}
        text = ", ".join(f"{mode} {count:,}" for mode, count in counts.items())
        remedy = "All are turned into RGB; check that colour does not give a class or a split away."
        found.append(Finding("note", f"Images store their colours in different ways: {text}", remedy))
    return found


def about_splits(counts: dict[str, int]) -> list[Finding]:
    """Empty and missing splits, and splits too small to measure on.

    Args:
        counts: split -> images.
    """
    found = []
    if not sum(counts.values()):
        return [Finding("error", "There are no images", "Check the path and the format.")]
    empty = [name for name, count in counts.items() if not count]
    if empty:
        found.append(finding("error", f"Empty: {', '.join(empty)}", "Add images, or remove the split.", empty))
    if not counts.get("train"):
        found.append(Finding("note", "There is no train split", "The set can measure a model, but not train one."))
    elif "validation" not in counts and "test" not in counts:
        remedy = "Set validation_fraction (and test_fraction): a part is then taken out of the training images."
        found.append(Finding("note", "All images are in the train split", remedy))
    for name in ("validation", "test"):
        if 0 < counts.get(name, 0) < 100:
            text = f"The {name} split has only {counted(counts[name], 'image')}"
            remedy = f"One image is {100 / counts[name]:.1f} points of accuracy: give the split more images."
            found.append(Finding("warning", text, remedy))
    return found


def about_classes(counts: ClassCounts, labels: Sequence[str], unit: str) -> list[Finding]:
    """Classes that a split lacks, that are rare, or much rarer than others.

    Args:
        counts: of the set.
        labels: K names.
        unit: what is counted, e.g. "labels", "boxes", "pixels".
    """
    found: list[Finding] = []
    filled = [row for row in range(len(counts.splits)) if counts.images[row].sum()]
    for row in filled:
        split = counts.splits[row]
        missing = [str(labels[index]) for index in np.flatnonzero(counts.objects[row] == 0).tolist()]
        if missing:
            level: Level = "error" if split == "train" else "warning"
            remedy = (
                "Nothing can be learned about them: add images, or remove the classes."
                if split == "train"
                else "Nothing can be measured for them: divide the set again, class by class."
            )
            text = f"{len(missing)} of {counted(len(labels), 'class', 'classes')} missing in the {split} split"
            found.append(finding(level, text, remedy, missing))
    if not filled:
        return found
    row = next((row for row in filled if counts.splits[row] == "train"), filled[0])
    rare = np.flatnonzero((counts.images[row] > 0) & (counts.images[row] < FEW_IMAGES))
    if len(rare) and counts.splits[row] == "train":
        found.append(
            finding(
                "warning",
                f"{counted(len(rare), 'class has', 'classes have')} fewer than {FEW_IMAGES} images in the train split",
                "Collect more, join classes, or start from trained weights.",
                (f"{labels[index]}: {counts.images[row, index]}" for index in rare.tolist()),
            )
        )
    ratio = imbalance_ratio(counts.objects[row])
    if ratio > UNBALANCED:
        present = np.flatnonzero(counts.objects[row])
        most, least = (present[pick(counts.objects[row][present])] for pick in (np.argmax, np.argmin))
        text = (
            f"The most frequent class of the {counts.splits[row]} split has {ratio:,.0f} times as many {unit}"
            " as the rarest one"
        )
        remedy = "Balance the training: class weights, balanced sampling or a focal loss; and look beyond accuracy."
        names = [f"{labels[index]}: {counts.objects[row, index]:,} {unit}" for index in (most, least)]
        found.append(finding("warning", text, remedy, names))
    return found


def about_boxes(table: BoxTable, problems: dict[str, np.ndarray], names: Sequence[str]) -> list[Finding]:
    """Boxes that cannot be right, or are too small to be learned.

    Args:
        table: of the set.
        problems: from `box_problems`.
        names: of the images.
    """
    kinds: tuple[tuple[str, Level, str, str], ...] = (
        ("degenerate", "error", "{} without area, or not finite", "Remove or redraw them."),
        ("outside", "error", "{} outside the image", "Is the image turned, or was it another size when annotated?"),
        ("beyond", "warning", "{} partly outside the image", "They are clipped; check what size they were made for."),
        ("two classes", "warning", "{} in the same place as one of another class", "Keep the right one of each pair."),
        ("repeated", "warning", "{} drawn twice", "Remove the copies: each of them counts as an object to be found."),
        ("tiny", "warning", "{} less than 4 pixels wide or high", "Train at a larger image size, or ignore them."),
    )
    found: list[Finding] = []
    for kind, level, text, remedy in kinds:
        indices = problems[kind]
        if len(indices):
            boxes = (
                f"{names[table.images[index]]}: {', '.join(f'{value:g}' for value in table.boxes[index])}"
                for index in indices
            )
            made = finding(level, text.format(counted(len(indices), "box is", "boxes are")), remedy, boxes)
            found.append(made)
    without = np.flatnonzero(table.per_image == 0).tolist()
    if without:
        share = (
            f"{counted(len(without), 'image')} ({100 * len(without) / len(table.per_image):.1f} %) without any object"
        )
        remedy = "Right, if there is nothing to find in them; else they teach the net to overlook objects."
        found.append(finding("note", share, remedy, (names[index] for index in without)))
    return found


def about_maps(maps: ClassMaps, names: Sequence[str]) -> list[Finding]:
    """Class maps that cannot be read, or hold little but void."""
    found: list[Finding] = []
    if maps.unreadable:
        files = (f"{names[index]}: {reason}" for index, reason in maps.unreadable.items())
        text = f"The masks of {counted(len(maps.unreadable), 'image')} cannot be read"
        found.append(finding("error", text, "Fetch them again, or remove the images.", files))
    _add(
        found,
        maps.void > MUCH_VOID,
        [f"{name}: {100 * share:.0f} % void" for name, share in zip(names, maps.void, strict=True)],
        "warning",
        "{} mostly void",
        "Void pixels teach nothing: check the mask's values against the number of classes.",
    )
    return found


def _add(found: list[Finding], chosen: np.ndarray, names: Sequence[str], level: Level, text: str, remedy: str) -> None:
    """Adds a finding about the chosen images, if there are any."""
    indices = np.flatnonzero(chosen).tolist()
    if indices:
        said = text.format(counted(len(indices), "image is", "images are"))
        found.append(finding(level, said, remedy, (names[index] for index in indices)))


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 box is", "2 boxes are"; `many` is `one` with an s where it is left out."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
