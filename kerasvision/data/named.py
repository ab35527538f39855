"""Sets known by name: from an installed package, a system folder, or the folder KERASVISION_DATA points to."""

import gzip
import importlib.util
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.data.coco import load_coco
from kerasvision.data.inspect import decode_with_pillow
from kerasvision.data.listing import Item, Listing, spread
from kerasvision.data.mask_files import VOID
from kerasvision.data.mask_folders import load_mask_folders
from kerasvision.data.splits import divide
from kerasvision.data.voc import load_voc
from kerasvision.errors import DataError
from kerasvision.progress import track

DATA_VARIABLE = "KERASVISION_DATA"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_LABELS = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CAMVID_LABELS = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
CIFAR10_VALIDATION = 0.1
ELPV_BLOCK = 60
FIXED_SPLIT = {"train": 0.7, "validation": 0.1, "test": 0.2}


def data_folder(name: str) -> Path | None:
    """The set's folder below KERASVISION_DATA, or None where there is none."""
    root = os.environ.get(DATA_VARIABLE)
    folder = Path(root, name) if root else None
    return folder if folder and folder.is_dir() else None


def _require_folder(name: str) -> Path:
    folder = data_folder(name)
    if folder is None:
        root = os.environ.get(DATA_VARIABLE)
        looked = f"{Path(root, name)} is not a folder" if root else f"the variable {DATA_VARIABLE} is not set"
        raise DataError(f"Cannot find {name}: {looked}. Point {DATA_VARIABLE} to the folder that holds {name}/.")
    return folder


def _array_items(images: np.ndarray, labels: Iterable[Any], names: tuple[str, ...], prefix: str) -> list[Item]:
    return [
        Item(image, (names[int(label)],), f"{prefix}/{index}")
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def load_digits() -> Listing:
    """scikit-learn's 1,797 handwritten digits, 8x8, split once and for all: 70 % train, 10 % validation, 20 % test."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    # The set's 17 grey levels 0..16 are stretched over the range every other image uses.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    listing = Listing({"train": _array_items(images, digits.target, names, "digits")}, names)
    divide(listing, FIXED_SPLIT["validation"], FIXED_SPLIT["test"], seed=0)
    return listing


def load_fashion_mnist() -> Listing:
    """Fashion-MNIST, 60,000 training and 10,000 test images of 28x28 (Xiao et al., 2017, arXiv:1708.07747).

    Read from Debian's package dataset-fashion-mnist, from KERASVISION_DATA/fashion_mnist, or downloaded by Keras.
    """
    folders = [folder for folder in (FASHION_FOLDER, data_folder("fashion_mnist")) if folder and folder.is_dir()]
    parts = {"train": "train", "test": "t10k"}
    if folders:
        arrays = {
            split: (
                read_idx(folders[0] / f"{part}-images-idx3-ubyte.gz"),
                read_idx(folders[0] / f"{part}-labels-idx1-ubyte.gz"),
            )
            for split, part in parts.items()
        }
    else:
        arrays = dict(zip(parts, _download_fashion_mnist(), strict=True))
    splits = {split: _array_items(images, labels, FASHION_LABELS, split) for split, (images, labels) in arrays.items()}
    return Listing(splits, FASHION_LABELS)


def _download_fashion_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    import keras

    try:
        return keras.datasets.fashion_mnist.load_data()
    # Keras wraps a failed download in a bare Exception.
    except Exception as error:
        raise DataError(
            f"Cannot find fashion_mnist in {FASHION_FOLDER} (Debian's package dataset-fashion-mnist) nor below "
            f"{DATA_VARIABLE}, and the download failed ({error}). Install the package, or put its four "
            f"idx .gz files into {DATA_VARIABLE}/fashion_mnist."
        ) from error


def read_idx(file: Path) -> np.ndarray:
    """Reads an array of bytes in the IDX format of the MNIST family, gzipped.

    Args:
        file: the .gz file.

    Returns:
        uint8 array of the shape the header states.

    Raises:
        DataError: the file is missing, damaged, or holds another type or length.
    """
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {file}: {error}. Fetch the file again.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(
            f"{file} is not an IDX file of bytes: it begins with {content[:4].hex(' ')}, expected 00 00 08."
        )
    header = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) - header != math.prod(shape):
        raise DataError(f"{file} is damaged: {len(content)} bytes do not fit its shape {shape}. Fetch the file again.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load_cifar10(limit: int | None = None) -> Listing:
    """CIFAR-10 as class folders inside KERASVISION_DATA/cifar10/train.zip; the last tenth of each class is validation.

    The images are decoded into memory straight from the archive.

    Args:
        limit: at most so many images of each split are decoded.
    """
    file = _require_folder("cifar10") / "train.zip"
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(name for name in archive.namelist() if re.fullmatch(r"[^/]+/[^/]+\.(jpe?g|png)", name))
            by_class: dict[str, list[str]] = {}
            for name in names:
                by_class.setdefault(name.split("/")[0], []).append(name)
            chosen: dict[str, list[str]] = {"train": [], "validation": []}
            for members in by_class.values():
                cut = len(members) - round(len(members) * CIFAR10_VALIDATION)
                chosen["train"] += members[:cut]
                chosen["validation"] += members[cut:]
            chosen = {split: [group[i] for i in spread(len(group), limit)] for split, group in chosen.items()}
            flat = [name for group in chosen.values() for name in group]
            contents = {name: archive.read(name) for name in flat}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"Cannot read {file}: {error}. Expected a zip archive of class folders.") from error
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded = pool.map(decode_with_pillow, contents.values())
        images = dict(zip(flat, track(decoded, "Reading cifar10", total=len(flat)), strict=True))
    splits = {
        split: [Item(images[name], (name.split("/")[0],), name) for name in group] for split, group in chosen.items()
    }
    return Listing(splits, tuple(sorted(by_class)))


def load_imagenet_sample() -> Listing:
    """Photographs of ImageNet classes below KERASVISION_DATA/imagenet_sample, all of them in "test".

    The number a name begins with is the class index. Classes without a photograph are called "class 0001".
    """
    folder = _require_folder("imagenet_sample")
    names = {}
    items = []
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(r"(\d{4})_n\d{8}_(.+)\.\w+", file.name)
        if match:
            index = int(match[1])
            if index > 999:
                raise DataError(f"{file}: class {index} is outside the range 0..999 of ImageNet.")
            names[index] = match[2].replace("_", " ")
            items.append((file, index))
    labels = _unique_names([names.get(index, f"class {index:04}") for index in range(1000)])
    return Listing(
        {"test": [Item(str(file), (labels[index],), file.name) for file, index in items]},
        labels,
        divide=False,
    )


def _unique_names(names: list[str]) -> tuple[str, ...]:
    """Two ImageNet classes share a name (crane, maillot): the later one gets its index behind it."""
    return tuple(name if names.index(name) == index else f"{name} {index}" for index, name in enumerate(names))


def load_bccd() -> Listing:
    """Blood cells in KERASVISION_DATA/bccd: 292 photographs with boxes of red and white cells and platelets (VOC)."""
    return load_voc(_require_folder("bccd"))


def load_nuclei() -> Listing:
    """Cell nuclei in KERASVISION_DATA/nuclei: 460 microscopy images with a mask for each nucleus (COCO)."""
    return load_coco(_require_folder("nuclei"))


def load_camvid() -> Listing:
    """Road scenes in KERASVISION_DATA/camvid, eleven classes and void (Brostow et al., 2009)."""
    return load_mask_folders(_require_folder("camvid"), CAMVID_LABELS, values=((len(CAMVID_LABELS), VOID),))


def load_elpv() -> Listing:
    """Electroluminescence photographs of solar cells, functional or defective (Deitsch et al., 2019, arXiv:1807.02894).

    A cell counts as defective at a stated probability of 0.5 or more. Rows are ordered by module and cells of one
    module resemble each other, so whole blocks of 60 rows are shuffled into 70 % train, 10 % validation, 20 % test.

    Raises:
        ImportError: the package elpv-dataset is missing.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise ImportError('The set elpv needs the package elpv-dataset: pip install "kerasvision[datasets]".')
    folder = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    labels = ("functional", "defective")
    blocks = [rows[start : start + ELPV_BLOCK] for start in range(0, len(rows), ELPV_BLOCK)]
    order = np.random.default_rng(0).permutation(len(blocks))
    ends = np.cumsum([round(share * len(blocks)) for share in FIXED_SPLIT.values()])
    parts = dict(zip(FIXED_SPLIT, np.split(order, ends[:-1]), strict=True))
    return Listing(
        {
            split: [
                Item(str(folder / path), (labels[float(probability) >= 0.5],), path)
                for block in sorted(part)
                for path, probability, _ in blocks[block]
            ]
            for split, part in parts.items()
        },
        labels,
        divide=False,
    )
