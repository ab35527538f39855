"""Findings about what occurs twice: equal images, look-alikes, and groups that a split tears apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasvision.data.duplicates import Duplicates
from kerasvision.data.findings import Finding, Level, counted, finding
from kerasvision.data.scan import ImageScan
from kerasvision.data.statistics import classes_of


def about_duplicates(
    duplicates: Duplicates,
    leaked: dict[tuple[str, str], np.ndarray],
    scan: ImageScan,
    examples: Sequence[dict[str, Any]],
) -> list[Finding]:
    """Images that occur twice: across splits, with different labels, or just twice.

    Args:
        duplicates: of the set.
        leaked: from `leaks`.
        scan: of the set.
        examples: N examples, split after split.
    """
    found: list[Finding] = []
    near = {tuple(pair) for pair in duplicates.near.tolist()}
    counts = {split: scan.splits.count(split) for split in dict.fromkeys(scan.splits)}

    def pair(indices: Sequence[int]) -> str:
        sign = " ~ " if (min(indices), max(indices)) in near else " = "
        return sign.join(scan.names[index] for index in indices)

    for (first, second), pairs in leaked.items():
        for alike in (False, True):
            chosen = [row for row in pairs.tolist() if ((min(row), max(row)) in near) == alike]
            if chosen:
                images = len({row[1] for row in chosen})
                one, many = (
                    ("looks like an image", "look like images") if alike else ("is a copy of one", "are copies of some")
                )
                kind = one if images == 1 else many
                text = (
                    f"{images:,} of {counted(counts[second], 'image')} of the {second} split"
                    f" ({100 * images / counts[second]:.1f} %) {kind} of the {first} split"
                )
                remedy = (
                    f"Figures of the {second} split are too good: copies and frames of one scene belong in one split."
                )
                # That two images are equal is sure; that they look alike is for a person to judge.
                found.append(finding("warning" if alike else "error", text, remedy, map(pair, chosen)))
    pairs = duplicates.pairs()
    kinds: tuple[tuple[Level, str, np.ndarray], ...] = (
        ("error", "equal images", pairs[: len(pairs) - len(near)]),
        ("warning", "look-alikes", duplicates.near),
    )
    for level, kind, chosen_pairs in kinds:
        # Two frames of one scene do not hold the same objects; two equal images do.
        counts_objects = level == "warning" and any("classes" in example for example in examples[:1])
        rows = [] if counts_objects else chosen_pairs.tolist()
        differ = [row for row in rows if _targets(examples[row[0]]) != _targets(examples[row[1]])]
        if differ:
            text = f"{counted(len(differ), 'pair')} of {kind} with different labels"
            remedy = "One of the two labels is wrong, or both hold: look at them."
            found.append(finding(level, text, remedy, map(pair, differ)))
    if duplicates.exact:
        copies = sum(len(group) - 1 for group in duplicates.exact)
        text = f"{counted(copies, 'image is', 'images are')} a copy of another one"
        found.append(finding("warning", text, "Remove the copies: they count twice.", map(pair, duplicates.exact)))
    if len(near):
        text = f"{counted(len(near), 'pair of images looks', 'pairs of images look')} alike"
        remedy = "Look at them; frames of one scene belong in one split."
        found.append(finding("note", text, remedy, map(pair, sorted(near))))
    return found


def about_groups(splits: Mapping[str, Sequence[dict[str, Any]]]) -> list[Finding]:
    """Groups (of frames, patients, modules ...) that lie in several splits."""
    where: dict[Any, list[str]] = {}
    for split, examples in splits.items():
        for group in {example["group"] for example in examples if example.get("group") is not None}:
            where.setdefault(group, []).append(split)
    divided = [f"{group}: {', '.join(names)}" for group, names in where.items() if len(names) > 1]
    if not divided:
        return []
    text = f"{counted(len(divided), 'group lies', 'groups lie')} in more than one split"
    return [finding("error", text, "Divide the set by group, so that the figures are of groups never seen.", divided)]


def _targets(example: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(classes_of(example).tolist()))
