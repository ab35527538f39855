"""From volumes and their label volumes to folders of images and masks that segmenters learn from."""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kerasvision.data.listing import Item, Listing, bullet_list
from kerasvision.data.mask_files import MAX_CLASSES, VOID
from kerasvision.data.splits import Division
from kerasvision.errors import DataError
from kerasvision.files import new_folder
from kerasvision.medical import nifti
from kerasvision.medical.reading import find_volumes, read_volume
from kerasvision.medical.volume import Volume, Window
from kerasvision.progress import track

# nnU-Net numbers the channels of a volume behind its name.
_CHANNEL = re.compile(r"_(\d{4})$")
FACTS = "volumes.json"


@dataclasses.dataclass(frozen=True)
class _Pair:
    name: str
    image: Path
    mask: Path


def write_slices(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    out: str | os.PathLike[str],
    labels: Sequence[str],
    *,
    window: Window | None = None,
    plane: nifti.Plane | None = None,
    empty: bool = True,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.0,
    seed: int = 0,
    group_pattern: str | None = None,
) -> dict[str, Any]:
    """Writes the slices of volumes as 8-bit PNG files, and their labels as masks, for `load_data(out)`.

    out/images/train/VOLUME/0001.png has its classes in out/masks/train/VOLUME/0001.png. Whole volumes are divided, so
    that slices of one never stand on two sides; with `group_pattern`, whole patients.

    Args:
        images: a folder of volumes: NIfTI files, or a folder for each DICOM series.
        masks: a folder of NIfTI files that are called like the volumes (of nnU-Net's case_0000.nii.gz, case.nii.gz).
            Values are class indices, whole numbers, 255 for void.
        out: a folder that is not there yet, or empty.
        labels: class names; the first is the background.
        window: which values become grey levels; of each volume its file's, or 0.5 to 99.5 % of its values, when None.
            Prediction must have the same.
        plane: of NIfTI, see `read_volume`.
        empty: whether slices of nothing but background are written too.
        validation_fraction: share of the volumes, above 0: `load_data` would else divide slices.
        test_fraction: the same for a test split.
        seed: decides which volumes those are.
        group_pattern: regular expression that finds the patient in the name of a volume, such as "patient(\\d+)"; what
            stands in its brackets, else the whole match.

    Returns:
        What stands in out/volumes.json: of each volume its split, slices, spacing and window.

    Raises:
        DataError: no pairs, volumes that differ from their labels, classes without a name, or too few volumes.
        ImportError: the extra `medical` is missing.
    """
    if not 2 <= len(labels) <= MAX_CLASSES:
        raise DataError(f"Expected the names of 2 to {MAX_CLASSES} classes, the background first, got {list(labels)}.")
    if not validation_fraction > 0:
        raise DataError("validation_fraction must be above 0: slices of one volume would else be divided later.")
    pairs = _pairs(Path(images), Path(masks))
    split_of = _divide(list(pairs), Division(validation_fraction, test_fraction, seed, "group", group_pattern))
    facts: dict[str, Any] = {"labels": list(labels), "plane": plane, "volumes": {}}
    with new_folder(Path(out).expanduser().absolute()) as folder:
        for name, pair in track(pairs.items(), "Writing slices", len(pairs)):
            volume, classes = _read(pair, labels, plane)
            used = volume.windowed(window)
            written = _write(folder, f"{split_of[name]}/{name}", volume.images(used), classes, empty)
            facts["volumes"][name] = {
                "split": split_of[name],
                "slices": written,
                "spacing_mm": volume.spacing,
                "window": dataclasses.asdict(used),
            }
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def volume_name(path: Path) -> str:
    """What a volume is called: its file without .nii.gz and the like, or its folder."""
    name = path.name if not path.is_dir() else path.absolute().name
    return re.sub(r"(?i)\.(nii\.gz|nii|dcm|dicom|ima|tiff?|png)$", "", name)


def _pairs(images: Path, masks: Path) -> dict[str, _Pair]:
    """Volumes and their labels, by name."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder. Expected a folder of volumes and one of their labels.")
    labelled: dict[str, Path] = {}
    for path in find_volumes(masks):
        other = labelled.setdefault(volume_name(path), path)
        if other != path:
            raise DataError(f"{other} and {path} have one name. Expected labels that are called like their volumes.")
    pairs: dict[str, _Pair] = {}
    lost = []
    for path in find_volumes(images):
        own = volume_name(path)
        name = own if own in labelled else _CHANNEL.sub("", own)
        if name not in labelled:
            lost.append(f"{path} has no labels {masks / name}.nii.gz")
        elif name in pairs:
            raise DataError(
                f"{pairs[name].image} and {path} have the same labels, {labelled[name]}. Expected one volume for each: "
                "of several channels, put one into a folder of its own."
            )
        else:
            pairs[name] = _Pair(name, path, labelled[name])
    if lost or not pairs:
        raise DataError(f"{images} and {masks} do not fit:\n{bullet_list(lost or ['there is no volume'])}")
    return pairs


def _divide(names: Sequence[str], division: Division) -> dict[str, str]:
    """Name of each volume -> its split."""
    listing = Listing({"train": [Item("", (), name, group=name) for name in names]}, ())
    division.apply(listing)
    return {item.key: split for split, items in listing.splits.items() for item in items}


def _read(pair: _Pair, labels: Sequence[str], plane: nifti.Plane | None) -> tuple[Volume, np.ndarray]:
    """A volume, and its classes, uint8 [slices, H, W]."""
    of_nifti = pair.image.name.lower().endswith(nifti.SUFFIXES)
    volume, mask = (
        read_volume(pair.image, plane=plane if of_nifti else None),
        nifti.read_nifti(pair.mask, plane or "axial"),
    )
    one, other = volume.affine, mask.affine
    if volume.values.shape != mask.values.shape:
        raise DataError(
            f"{pair.image} has {_text(volume)} and its labels {pair.mask} {_text(mask)}. Resample the labels."
        )
    if one is not None and other is not None and not np.allclose(one, other, atol=0.05):
        raise DataError(
            f"{pair.image} and its labels {pair.mask} lie in different places: their affines differ by up to "
            f"{np.abs(one - other).max():.3g} mm. Resample the labels into the volume's geometry."
        )
    values = mask.values
    wrong = ~np.isin(values, [*range(len(labels)), VOID])
    if wrong.any():
        raise DataError(
            f"{pair.mask} holds {values[wrong][0]}, of which there is no class. Expected 0..{len(labels) - 1} for "
            f"{', '.join(labels)}, or 255 for void."
        )
    return volume, values.astype(np.uint8)


def _text(volume: Volume) -> str:
    slices, height, width = volume.values.shape
    return f"{slices} slices of {height} x {width}"


def _write(folder: Path, name: str, images: np.ndarray, classes: np.ndarray, empty: bool) -> int:
    """Writes slices, and returns how many."""
    written = 0
    for index, slice_ in enumerate(classes):
        if not empty and not slice_.any():
            continue
        for kind, pixels in (("images", images[index]), ("masks", slice_)):
            file = folder / kind / name / f"{index:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        written += 1
    return written
