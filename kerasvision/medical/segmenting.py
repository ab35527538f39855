"""Segmentation of volumes slice by slice, in two dimensions."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.class_maps import VOID
from kerasvision.draw import draw
from kerasvision.errors import DataError
from kerasvision.medical.nifti import write_nifti
from kerasvision.medical.volume import Volume, Window
from kerasvision.runtime import Predictor, load


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """The classes of the voxels of a volume.

    Made by `kerasvision.medical.segment`.

    Args:
        volume: what was segmented.
        classes: uint8 [slices, H, W]; 255 where the model says nothing.
        labels: K class names; the first is the background.
        window: which values the model saw as grey levels.
    """

    volume: Volume
    classes: np.ndarray
    labels: tuple[str, ...]
    window: Window

    def voxels(self) -> dict[str, int]:
        """Label -> number of voxels of that class."""
        counts = np.bincount(self.classes.ravel(), minlength=VOID + 1)
        return {label: int(counts[index]) for index, label in enumerate(self.labels)}

    def millilitres(self) -> dict[str, float]:
        """Label -> volume of that class.

        Raises:
            DataError: the file does not say how far apart voxels are.
        """
        voxel = self.volume.voxel_ml
        return {label: count * voxel for label, count in self.voxels().items()}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes the class map as NIfTI, whole or not at all: uint8, in the axes and the affine of the volume's file.

        Of a DICOM series, index k of the last axis is the k-th slice along the normal, and the affine puts the map
        where the slices lie. Of files without spacing the affine is the identity.

        Args:
            path: a .nii or .nii.gz file.

        Raises:
            DataError: another suffix.
        """
        path = Path(path)
        write_nifti(path, self.classes, self.volume.layout)
        return path

    def to_dict(self) -> dict[str, Any]:
        """Size, spacing and window, and of each class the voxels and, where spacing is known, the millilitres."""
        spacing, voxels = self.volume.spacing, self.voxels()
        sizes = {} if spacing is None else self.millilitres()
        return {
            "volume": self.volume.source,
            "size": list(self.classes.shape),
            "spacing_mm": None if spacing is None else [round(side, 6) for side in spacing],
            "window": dataclasses.asdict(self.window),
            "classes": {
                label: {"voxels": count, **({"ml": round(sizes[label], 6)} if sizes else {})}
                for label, count in voxels.items()
            },
        }

    def draw(self, index: int | None = None) -> Image.Image:
        """One slice with the colours of its classes, that with the most of other classes than the first when None."""
        if index is None:
            index = int(((self.classes > 0) & (self.classes < VOID)).sum(axis=(1, 2)).argmax())
        one = dataclasses.replace(self.volume, values=self.volume.values[index : index + 1])
        return draw(one.images(self.window)[0], labels=self.labels, segmentation=self.classes[index])


def segment(
    artifact: str | os.PathLike[str] | Predictor, volume: Volume, window: Window | None = None
) -> SegmentedVolume:
    """Segments a volume, slice by slice.

    Slices become images of 8 bits by a window, the same for all of them, and are predicted as any image is: fitted to
    the model's size, or in tiles with `kerasvision.with_tiles`.

    Args:
        artifact: a segmenter: anything `kerasvision.load` takes, or a loaded Predictor.
        volume: of `read_volume`.
        window: which values become grey levels, as in training; the file's, or 0.5 to 99.5 % of all values, when None.

    Raises:
        ArtifactError: the artifact cannot be used.
        DataError: it is no segmenter.
    """
    predictor = artifact if isinstance(artifact, Predictor) else load(artifact)
    window = volume.windowed(window)
    if predictor.task.name != "segmentation":
        raise DataError(f"{predictor.path} is {predictor.kind}. Expected a segmenter for {volume.source}.")
    found: Any = predictor.predict(list(volume.images(window)))
    return SegmentedVolume(volume, np.stack(found.maps), found.labels, window)
