"""The table of data formats, and `load_data`, which recognises what it is given."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from kerasvision.data import listing as listings
from kerasvision.data import named
from kerasvision.data.dataset import Data
from kerasvision.data.folders import load_csv, load_folder
from kerasvision.data.listing import Item, Listing
from kerasvision.errors import DataError, UnknownNameError, closest


@dataclasses.dataclass(frozen=True)
class Options:
    """What a loader may look at beside the source itself.

    Args:
        multi_label: give every image a set of labels.
        limit: at most so many images of each split are wanted.
    """

    multi_label: bool = False
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class DataFormat:
    """One kind of source.

    Args:
        description: what it is, for messages and `--help`.
        recognise: whether a source string is of this kind.
        load: source string and options -> its listing.
    """

    description: str
    recognise: Callable[[str], bool]
    load: Callable[[str, Options], Listing]


def _named(name: str, description: str, load: Callable[[Options], Listing]) -> DataFormat:
    return DataFormat(description, lambda source: source == name, lambda source, options: load(options))


# A name wins over a folder of that name in the working directory; "./digits" asks for the folder.
FORMATS: dict[str, DataFormat] = {
    "digits": _named("digits", "scikit-learn's 8x8 digits", lambda options: named.load_digits()),
    "fashion_mnist": _named("fashion_mnist", "Fashion-MNIST", lambda options: named.load_fashion_mnist()),
    "cifar10": _named(
        "cifar10", "KERASVISION_DATA/cifar10/train.zip", lambda options: named.load_cifar10(options.limit)
    ),
    "imagenet_sample": _named(
        "imagenet_sample", "KERASVISION_DATA/imagenet_sample", lambda options: named.load_imagenet_sample()
    ),
    "elpv": _named("elpv", "solar cells of the package elpv-dataset", lambda options: named.load_elpv()),
    "tfds": DataFormat(
        "tfds:NAME, a set of tensorflow-datasets",
        lambda source: source.startswith("tfds:"),
        lambda source, options: named.load_tfds(source.removeprefix("tfds:"), options.limit),
    ),
    "csv": DataFormat(
        "a CSV or TSV file of path,label[,split]",
        lambda source: Path(source).is_file() and Path(source).suffix.lower() in (".csv", ".tsv"),
        lambda source, options: load_csv(_existing(source), options.multi_label),
    ),
    "folder": DataFormat(
        "a tree of class folders, with or without train/val/test",
        lambda source: Path(source).is_dir(),
        lambda source, options: load_folder(_existing(source), options.multi_label),
    ),
}


def load_data(
    source: str | os.PathLike[str],
    format: str | None = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    seed: int = 0,
    on_bad_files: Literal["stop", "skip"] = "stop",
    multi_label: bool = False,
    limit: int | None = None,
) -> Data:
    """Lists, verifies and splits a labelled set of images.

    Splits that the source brings along are kept; a missing validation split, and on request a test split, is
    taken out of the training images, class by class. Every image file is read to its end before this returns.

    Args:
        source: folder, CSV file, "tfds:NAME", or the name of a known set (the keys of `FORMATS`).
        format: key of `FORMATS`; recognised from the source where None.
        validation_fraction: share of the training images that become a missing validation split; 0 for none.
        test_fraction: share of the training images that become a missing test split; 0 for none.
        seed: decides which images those are.
        on_bad_files: "stop" raises one error that lists every unusable file; "skip" leaves them out.
        multi_label: give every image a set of labels even where none has two.
        limit: at most so many images of each split of the source, evenly spread over its classes.

    Returns:
        The verified set.

    Raises:
        UnknownNameError: there is no such format.
        DataError: unknown source, unusable files, labels or splits; the message names the remedy.
        ImportError: the source needs an optional package; the message names the extra.
    """
    if on_bad_files not in ("stop", "skip"):
        raise DataError(f'on_bad_files must be "stop" or "skip", got {on_bad_files!r}.')
    source = os.fspath(source)
    listing = _format_of(source, format).load(source, Options(multi_label, limit))
    if multi_label:
        listing.multi_label = True
    listings.check_classes(listing, source)
    listing.splits = {
        name: [items[index] for index in listings.spread(len(items), limit)] for name, items in listing.splits.items()
    }
    infos, skipped = listings.verify(listing, on_bad_files)
    listings.check_splits(listing, source)
    listings.divide(listing, validation_fraction, test_fraction, seed)
    if limit is None:
        listings.check_classes(listing, source)
    position = {label: index for index, label in enumerate(listing.labels)}
    return Data(
        labels=listing.labels,
        splits={name: [_example(item, listing, position) for item in items] for name, items in listing.splits.items()},
        multi_label=listing.multi_label,
        source=source,
        skipped=skipped,
        infos=infos,
    )


def _example(item: Item, listing: Listing, position: dict[str, int]) -> dict:
    indices = [position[label] for label in item.labels]
    return (
        {"image": item.image, "labels": indices} if listing.multi_label else {"image": item.image, "label": indices[0]}
    )


def _format_of(source: str, format: str | None) -> DataFormat:
    if format is not None:
        if format not in FORMATS:
            raise UnknownNameError(f'Unknown data format "{format}".{closest(format, FORMATS)}')
        return FORMATS[format]
    for candidate in FORMATS.values():
        if candidate.recognise(source):
            return candidate
    if Path(source).is_file():
        raise DataError(
            f"{source} is a file, but not a CSV. Expected {_expected()}; format= overrides the recognition."
        )
    raise DataError(
        f'Unknown data "{source}": no file or folder at {Path(source).absolute()}, and no set of that name.'
        f"{closest(source, FORMATS.keys() - {'folder', 'csv', 'tfds'})} Expected {_expected()}."
    )


def _expected() -> str:
    return "a folder of class folders, a .csv file, tfds:NAME or the name of a set"


def _existing(source: str) -> Path:
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise DataError(f"No file or folder at {path}.")
    return path
