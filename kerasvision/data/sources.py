"""The table of data formats, and `load_data`, which recognises what it is given."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from kerasvision.data import named
from kerasvision.data.arrays import load_npz
from kerasvision.data.coco import load_coco
from kerasvision.data.coco_files import find_indices
from kerasvision.data.dataset import Data
from kerasvision.data.folders import load_folder
from kerasvision.data.listing import Listing
from kerasvision.data.mask_folders import is_mask_folder, load_mask_folders
from kerasvision.data.preparation import prepare
from kerasvision.data.shard_index import is_shard_folder
from kerasvision.data.shards import load_shards
from kerasvision.data.splits import Division, SplitRule
from kerasvision.data.storage import as_path
from kerasvision.data.tables import load_csv
from kerasvision.data.tfds import load_tfds
from kerasvision.data.video import SUFFIXES as VIDEO_SUFFIXES
from kerasvision.data.video import list_video
from kerasvision.data.voc import is_voc_folder, is_voc_mask_folder, load_voc, load_voc_masks
from kerasvision.data.yolo import load_yolo
from kerasvision.data.yolo_layout import is_yolo_folder
from kerasvision.errors import DataError, UnknownNameError, closest


@dataclasses.dataclass(frozen=True)
class Options:
    """What a loader may look at beside the source itself.

    Args:
        multi_label: give every image a set of labels.
        limit: at most so many images of each split are wanted.
        verify: compare all bytes with their checksums, where the source has them.
    """

    multi_label: bool = False
    limit: int | None = None
    verify: bool = False


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
    "bccd": _named("bccd", "KERASVISION_DATA/bccd, boxes", lambda options: named.load_bccd()),
    "nuclei": _named("nuclei", "KERASVISION_DATA/nuclei, instances", lambda options: named.load_nuclei()),
    "camvid": _named("camvid", "KERASVISION_DATA/camvid, segmentation", lambda options: named.load_camvid()),
    "tfds": DataFormat(
        "tfds:NAME, a set of tensorflow-datasets",
        lambda source: source.startswith("tfds:"),
        lambda source, options: load_tfds(source.removeprefix("tfds:"), options.limit),
    ),
    "tfds_segmentation": DataFormat(
        "the segmentation_mask of a tfds:NAME that has labels, too",
        lambda source: False,
        lambda source, options: load_tfds(source.removeprefix("tfds:"), options.limit, segmentation=True),
    ),
    "csv": DataFormat(
        "a CSV or TSV file of path,label[,split]",
        lambda source: _is_file(source, (".csv", ".tsv")),
        lambda source, options: load_csv(_existing(source), options.multi_label),
    ),
    "npz": DataFormat(
        "an .npz file of images and labels",
        lambda source: _is_file(source, (".npz",)),
        lambda source, options: load_npz(_existing(source)),
    ),
    "video": DataFormat(
        "a video; its frames, without labels",
        lambda source: _is_file(source, VIDEO_SUFFIXES),
        lambda source, options: list_video(_existing(source)),
    ),
    "shards": DataFormat(
        "a folder of TFRecord shards written by `kerasvision convert`",
        lambda source: is_shard_folder(as_path(source)),
        lambda source, options: load_shards(_existing(source), options.verify),
    ),
    "coco": DataFormat(
        "a COCO .json file, or a folder with one for each split",
        lambda source: _is_file(source, (".json",)) or _is_folder(source, lambda folder: bool(find_indices(folder))),
        lambda source, options: load_coco(_existing(source)),
    ),
    "voc": DataFormat(
        "a Pascal VOC folder: Annotations/, JPEGImages/, ImageSets/Main/",
        lambda source: _is_folder(source, is_voc_folder),
        lambda source, options: load_voc(_folder(source)),
    ),
    "voc_segmentation": DataFormat(
        "a Pascal VOC folder's masks: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/",
        lambda source: _is_folder(source, is_voc_mask_folder),
        lambda source, options: load_voc_masks(_folder(source)),
    ),
    "yolo": DataFormat(
        "a YOLO data.yaml, or a folder with images/, labels/ and classes.txt",
        lambda source: _is_file(source, (".yaml", ".yml")) or _is_folder(source, is_yolo_folder),
        lambda source, options: load_yolo(_existing(source)),
    ),
    "masks": DataFormat(
        "folders of images and of masks: images/ and masks/, train/ and trainannot/ ...",
        lambda source: _is_folder(source, is_mask_folder),
        lambda source, options: load_mask_folders(_folder(source)),
    ),
    "folder": DataFormat(
        "a tree of class folders, with or without train/val/test",
        lambda source: as_path(source).is_dir(),
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
    split: SplitRule = "stratified",
    group_pattern: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    frame_step: int = 1,
    verify: bool = False,
) -> Data:
    """Lists, verifies and splits a labelled set of images.

    Splits that the source brings along are kept; a missing validation split, and on request a test split, is
    taken out of the training images. Every image file is read to its end before this returns.

    Args:
        source: folder, CSV, COCO .json, YOLO .yaml or .npz file, video, "tfds:NAME", or the name of a known set;
            `FORMATS` describes each.
        format: key of `FORMATS`; recognised from the source where None.
        validation_fraction: share of the training images that become a missing validation split; 0 for none.
        test_fraction: share of the training images that become a missing test split; 0 for none.
        seed: decides which images those are.
        on_bad_files: "stop" raises one error that lists every unusable file; "skip" leaves them out.
        multi_label: give every image a set of labels even where none has two.
        limit: at most so many images of each split of the source, evenly spread over its classes.
        split: how those images are chosen: "stratified" takes the same share of each class, "random" does not look at
            classes, "group" neither, and asks for groups. No rule divides a group.
        group_pattern: regular expression that finds an image's group in its path below the folder. Without one, a
            CSV file's column "group" and the videos that frames come from are the groups.
        split_file: a file that `save_split` wrote, in place of all of these.
        frame_step: of videos: every so many frames one is taken, beginning with the first.
        verify: of TFRecord shards: compare all bytes with their checksums first.

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
    listing = _format_of(source, format).load(source, Options(multi_label, limit, verify))
    if multi_label and listing.kind != "labels":
        raise DataError(f"{source} is a set of {listing.kind}; multi_label is for sets of labels. Leave it out.")
    listing.multi_label = listing.multi_label or multi_label
    division = Division(validation_fraction, test_fraction, seed, split, group_pattern, split_file)
    return prepare(listing, source, division, on_bad_files=on_bad_files, limit=limit, frame_step=frame_step)


def _format_of(source: str, format: str | None) -> DataFormat:
    if format is not None:
        if format not in FORMATS:
            raise UnknownNameError(f'Unknown data format "{format}".{closest(format, FORMATS)}')
        return FORMATS[format]
    for candidate in FORMATS.values():
        if candidate.recognise(source):
            return candidate
    if as_path(source).is_file():
        raise DataError(
            f"{source} is a file of no known kind. Expected {_expected()}; format= overrides the recognition."
        )
    names = [name for name, known in FORMATS.items() if known.recognise(name)]
    raise DataError(
        f'Unknown data "{source}": no file or folder at {as_path(source)}, and no set of that name.'
        f"{closest(source, names)} Expected {_expected()}."
    )


def _expected() -> str:
    return (
        "a folder (class folders, COCO, VOC, YOLO, images and masks, shards), a .csv, .json, .yaml, .npz or video "
        "file, tfds:NAME or the name of a set"
    )


def _is_file(source: str, suffixes: tuple[str, ...]) -> bool:
    return source.lower().endswith(suffixes) and as_path(source).is_file()


def _is_folder(source: str, recognise: Callable[[Path], bool]) -> bool:
    folder = as_path(source)
    return folder.is_dir() and recognise(folder)


def _folder(source: str) -> Path:
    path = _existing(source)
    if not path.is_dir():
        raise DataError(f"{path} is a file. Expected the folder of the set.")
    return path


def _existing(source: str) -> Path:
    path = as_path(source)
    if not path.exists():
        raise DataError(f"No file or folder at {path}.")
    return path
