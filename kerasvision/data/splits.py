"""Splitting a set into train, validation and test: by class, at random or by group, and from a saved file."""

import dataclasses
import hashlib
import json
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasvision.data.listing import Item, Listing, bullet_list
from kerasvision.data.storage import as_path
from kerasvision.errors import DataError
from kerasvision.files import write_text

if TYPE_CHECKING:
    from kerasvision.data.dataset import Data

SplitRule = Literal["stratified", "random", "group"]
_KIND = "kerasvision split"
_VERSION = 1
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Division:
    """How splits that a source lacks are taken out of its training images.

    Args:
        validation_fraction: share of the images, 0..1.
        test_fraction: the same.
        seed: another seed, another division.
        rule: see `divide`.
        group_pattern: see `set_groups`.
        file: a saved split, in place of the other fields but `group_pattern`.
    """

    validation_fraction: float = 0.1
    test_fraction: float = 0.0
    seed: int = 0
    rule: SplitRule = "stratified"
    group_pattern: str | None = None
    file: str | os.PathLike[str] | None = None

    def apply(self, listing: Listing, whole: bool = True) -> None:
        """Divides a listing in place.

        Args:
            listing: its splits change.
            whole: whether it is the whole set.
        """
        if self.group_pattern is not None:
            set_groups(listing, self.group_pattern)
        if self.file is not None:
            apply_split(listing, self.file, whole)
        else:
            divide(listing, self.validation_fraction, self.test_fraction, self.seed, self.rule)


def set_groups(listing: Listing, pattern: str) -> None:
    """Gives every item the group that a regular expression finds in its key.

    Args:
        listing: changed in place.
        pattern: searched for in the path below the set's folder; what stands in its brackets names the group, the
            whole match where it has none: "patient_(\\d+)", "^[^/]+/[^/]+".

    Raises:
        DataError: the pattern is no regular expression, or is not found in a key.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group_pattern {pattern!r} is no regular expression: {error}.") from error
    strays = []
    for name, items in listing.splits.items():
        grouped = []
        for item in items:
            match = expression.search(item.key)
            if match is None:
                strays.append(item.key)
                continue
            found = "/".join(part or "" for part in match.groups()) if match.groups() else match[0]
            grouped.append(dataclasses.replace(item, group=found))
        listing.splits[name] = grouped
    if strays:
        raise DataError(
            f"group_pattern {pattern!r} is not found in {len(strays)} keys:\n{bullet_list(strays)}\n"
            "Expected a pattern that every path below the set's folder has."
        )


def divide(
    listing: Listing, validation_fraction: float, test_fraction: float, seed: int, rule: SplitRule = "stratified"
) -> None:
    """Takes missing validation and test splits out of "train".

    A group is never divided, whatever the rule. The place of an item, or of its group, follows from a hash of the
    seed and its key, so it depends neither on the order of the files nor on the machine, and adding files moves few
    others. "stratified" takes the same share of each class, and at least one image of every class that has enough;
    "random" does not look at classes; "group" does not either, and asks for a group of every item.

    Args:
        listing: changed in place.
        validation_fraction: share of the images (of each class), 0..1.
        test_fraction: the same.
        seed: another seed, another division.
        rule: "stratified", "random" or "group".

    Raises:
        DataError: the fractions are impossible or leave a split empty, or an item has no group.
    """
    if not (0 <= validation_fraction <= 1 and 0 <= test_fraction <= 1 and validation_fraction + test_fraction <= 1):
        raise DataError(
            "validation_fraction and test_fraction must lie in 0..1 and sum to at most 1, "
            f"got {validation_fraction} and {test_fraction}."
        )
    if rule not in ("stratified", "random", "group"):
        raise DataError(f'split must be "stratified", "random" or "group", got {rule!r}.')
    wanted = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: share for name, share in wanted.items() if share > 0 and name not in listing.splits}
    items = listing.splits.get("train")
    if not listing.divide or not wanted or not items:
        return
    if rule == "group" and any(item.group is None for item in items):
        lost = [item.key for item in items if item.group is None]
        raise DataError(
            f"{len(lost)} of {len(items)} images belong to no group:\n{bullet_list(lost)}\n"
            'Set group_pattern, add a column "group" to the CSV file, or split by another rule.'
        )
    place = _places(items, wanted, seed, by_class=rule == "stratified" and not listing.multi_label)
    for name in wanted:
        listing.splits[name] = [item for item in items if place.get(item.key) == name]
        if not listing.splits[name]:
            kind = "group" if any(item.group is not None for item in items) else "image"
            within = "no class has" if rule == "stratified" else "there is not"
            raise DataError(
                f"The {name} split would be empty: {within} more than one {kind} ({len(items)} images). "
                f"Add images, name a {name} folder, or set {name}_fraction=0."
            )
    rest = [item for item in items if item.key not in place]
    listing.splits.pop("train")
    if rest:
        listing.splits = {"train": rest, **listing.splits}


def _places(items: Sequence[Item], wanted: dict[str, float], seed: int, by_class: bool) -> dict[str, str]:
    """Key -> split, of the items that leave "train"."""
    units: dict[tuple[bool, str], list[Item]] = defaultdict(list)
    for item in items:
        units[(item.group is not None, item.key if item.group is None else item.group)].append(item)
    strata: dict[Any, list[tuple[bytes, list[Item]]]] = defaultdict(list)
    for (_, name), members in units.items():
        # Label sets are mostly unique in a multi-label set: one stratum keeps the shares right.
        stratum = Counter(item.labels for item in members).most_common(1)[0][0] if by_class else ()
        strata[stratum].append((_rank(seed, name), members))
    reserve = int(sum(wanted.values()) < 1)  # units of each class that stay in "train" in any case
    places = {}
    for stratum_units in strata.values():
        ranked = [members for _, members in sorted(stratum_units, key=lambda unit: unit[0])]
        count = sum(map(len, ranked))
        for split, share in wanted.items():
            target = max(round(count * share), 1)
            chosen = _nearest([len(members) for members in ranked], target, len(ranked) - reserve)
            places.update({item.key: split for index in chosen for item in ranked[index]})
            ranked = [members for index, members in enumerate(ranked) if index not in chosen]
    return places


def _nearest(sizes: Sequence[int], target: int, most: int) -> set[int]:
    """Indices of the first units whose sizes together come near the target; one if there may be any, at most `most`."""
    chosen: set[int] = set()
    count = 0
    for index, size in enumerate(sizes):
        if len(chosen) < most and abs(count + size - target) < target - count:
            chosen.add(index)
            count += size
    if most > 0 and not chosen:
        chosen.add(int(np.argmin(sizes)))
    return chosen


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def save_split(data: "Data", file: str | os.PathLike[str], **facts: Any) -> None:
    """Writes which example is in which split, for `load_data(..., split_file=file)`.

    Args:
        data: a set from `load_data`.
        file: the JSON file to write, whole or not at all.
        facts: what else is to stand in it, such as rule="group", seed=0.

    Raises:
        DataError: examples have no key, or share one.
    """
    keys = [example.get("key") for examples in data.splits.values() for example in examples]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise DataError(
            f"{data.source or 'The set'} has examples without a key of their own ({twice[0]!r} and {len(twice) - 1} "
            "more), so its split cannot be saved. Sets from load_data and load_arrays have keys."
        )
    splits = {name: [example["key"] for example in examples] for name, examples in data.splits.items()}
    content = {"kind": _KIND, "version": _VERSION, "source": data.source, **facts, "splits": splits}
    write_text(Path(file), json.dumps(content, indent=1, ensure_ascii=True) + "\n")


def apply_split(listing: Listing, file: str | os.PathLike[str], whole: bool = True) -> None:
    """Divides a set as a saved file says.

    Items the file does not know (added since) join the split their group is in, and else stay where the source has
    them, which is "train" for a set without splits of its own; a warning says how many there are.

    Args:
        listing: changed in place.
        file: written by `save_split`.
        whole: whether the listing is the whole set, so that items the file knows and it lacks are worth a word.

    Raises:
        DataError: the file is damaged, of another version, or of another set.
    """
    saved = _read(file)
    of_key = {key: split for split, keys in saved.items() for key in keys}
    items = [(split, item) for split, items in listing.splits.items() for item in items]
    known = {item.key: of_key[item.key] for _, item in items if item.key in of_key}
    if items and not known:
        raise DataError(f"{file} is the split of another set: it knows none of the {len(items)} images here.")
    of_group = {item.group: known[item.key] for _, item in items if item.group and item.key in known}
    divided: dict[str, list[Item]] = {name: [] for name in _SPLITS}
    for split, item in items:
        divided[known.get(item.key) or of_group.get(item.group or "", split)].append(item)
    listing.splits = {name: divided[name] for name in _SPLITS if divided[name]}
    added, gone = len(items) - len(known), len(of_key) - len(known)
    if added:
        warnings.warn(f"{added} images are new since {file} was written: they are not held out.", stacklevel=3)
    if gone and whole:
        warnings.warn(f"{gone} images that {file} names are gone.", stacklevel=3)


def _read(file: str | os.PathLike[str]) -> dict[str, list[str]]:
    path = as_path(file)
    if not path.is_file():
        raise DataError(f"No split file at {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON file: {error}. Expected what save_split writes.") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise DataError(f"{path} is no split file. Expected what save_split writes.")
    if content.get("version") != _VERSION:
        raise DataError(f"{path} is of version {content.get('version')}, but version {_VERSION} is read here.")
    splits = content.get("splits")
    sound = isinstance(splits, dict) and all(
        name in _SPLITS and isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        for name, keys in splits.items()
    )
    if not sound:
        raise DataError(f'{path} is damaged: "splits" should hold lists of keys for {", ".join(_SPLITS)}.')
    return splits  # type: ignore[return-value]
