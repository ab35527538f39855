"""Finding volumes and reading them, whatever their format."""

import os
from pathlib import Path

from kerasvision.data.paths import is_clutter, is_image
from kerasvision.errors import DataError
from kerasvision.medical import dicom, images, nifti
from kerasvision.medical.dicom import Gaps
from kerasvision.medical.nifti import Plane
from kerasvision.medical.volume import Volume


def read_volume(
    path: str | os.PathLike[str],
    *,
    plane: Plane | None = None,
    spacing: tuple[float, float, float] | None = None,
    gaps: Gaps = "stop",
) -> Volume:
    """Reads a volume: slices with their spacing and their place in space.

    Args:
        path: a NIfTI file (.nii, .nii.gz); a folder with one DICOM series, or one DICOM file; or a TIFF or PNG file,
            whose pages are slices.
        plane: of NIfTI, which way to slice: "axial" (when None), "coronal" or "sagittal". DICOM and images have
            slices.
        spacing: of TIFF and PNG, which do not say it: between slices, rows and columns, in mm.
        gaps: of a DICOM series whose slices are not evenly apart: "stop" raises, "warn" takes the mean distance.

    Returns:
        The volume, in the values that the file means (rescaled as DICOM and NIfTI say).

    Raises:
        DataError: nothing there, damaged, of several series or volumes, or an option of another format.
        ImportError: the extra `medical` is missing.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    name = path.name.lower()
    of_nifti, of_images = name.endswith(nifti.SUFFIXES), path.is_file() and name.endswith(images.SUFFIXES)
    if plane is not None and not of_nifti:
        raise DataError(f"plane is for NIfTI files; {path} is read slice by slice as it is.")
    if spacing is not None and not of_images:
        raise DataError(f"spacing is for TIFF and PNG files; {path} says it itself.")
    if of_nifti:
        return nifti.read_nifti(path, plane or "axial")
    return images.read_pages(path, spacing) if of_images else dicom.read_dicom(path, gaps)


def find_volumes(path: str | os.PathLike[str]) -> list[Path]:
    """Volumes at a path: the path itself, or what lies in a folder and below.

    Args:
        path: a NIfTI or DICOM file, a folder with a DICOM series, or a folder of such files and folders.

    Returns:
        Files and folders for `read_volume`, sorted; none where there are images or nothing.

    Raises:
        DataError: a folder holds volumes and images.
    """
    path = Path(path)
    if not path.is_dir():
        named = path.name.lower().endswith((*nifti.SUFFIXES, *dicom.SUFFIXES))
        return [path] if named or (not is_image(path.name) and dicom.is_dicom(path)) else []
    files = sorted(file for file in path.rglob("*") if file.is_file() and not is_clutter(file.name))
    of_nifti = [file for file in files if file.name.lower().endswith(nifti.SUFFIXES)]
    pictures = [file for file in files if is_image(file.name)]
    others = [file for file in files if not is_image(file.name) and file not in set(of_nifti)]
    # Folders of images have other files, too; those of DICOM need not have a suffix.
    of_dicom = [file for file in others if file.suffix.lower() in dicom.SUFFIXES or dicom.is_dicom(file)]
    if pictures and (of_nifti or of_dicom):
        raise DataError(
            f"{path} holds images ({pictures[0].name}) and volumes ({[*of_nifti, *of_dicom][0].name}). Name the files, "
            "or put them into folders of their own."
        )
    return sorted({*of_nifti, *(file.parent for file in of_dicom)})
