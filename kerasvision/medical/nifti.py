"""NIfTI files (.nii, .nii.gz), read as slices in DICOM's view, and label maps written beside them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasvision.errors import DataError
from kerasvision.files import replacing
from kerasvision.medical.volume import UNITS, Layout, Volume

SUFFIXES = (".nii", ".nii.gz")
Plane = Literal["axial", "coronal", "sagittal"]
# Where slices, rows and columns lead to: Left, Right, Anterior, Posterior, Superior, Inferior. Axial slices lie as
# those of DICOM do.
_PLANES: dict[str, tuple[str, str, str]] = {
    "axial": ("S", "P", "L"),
    "coronal": ("P", "I", "L"),
    "sagittal": ("L", "I", "P"),
}


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError('NIfTI files need nibabel: pip install "kerasvision[medical]"') from error
    return nibabel


def read_nifti(path: Path, plane: Plane = "axial") -> Volume:
    """Reads a volume, scaled as its header says (scl_slope, scl_inter).

    Args:
        path: a .nii or .nii.gz file of two or three axes.
        plane: of the slices, the nearest one where the axes are oblique. Axial slices go up, their rows to the back
            and their columns to the patient's left; coronal and sagittal ones have the head at the top.

    Returns:
        The volume; its layout holds the file's own axes and affine.

    Raises:
        DataError: damaged, of more axes, or of values that are no plain numbers.
        ImportError: the extra `medical` is missing.
    """
    nibabel = _nibabel()
    try:
        image = nibabel.load(path)
        stored = np.asanyarray(image.dataobj)
    # nibabel, gzip and zlib raise what they stumble over.
    except Exception as error:
        raise DataError(f"{path} cannot be read as NIfTI: truncated or damaged ({error}).") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise DataError(f"{path} holds a {type(image).__name__}. Expected a volume of voxels.")
    if stored.dtype.kind not in "iufb":
        raise DataError(f"{path}: voxels of type {stored.dtype}. Expected one number for each voxel.")
    if stored.ndim < 2 or any(side != 1 for side in stored.shape[3:]) or 0 in stored.shape:
        raise DataError(
            f"{path} has the axes {list(stored.shape)}. Expected one volume of two or three axes: save the volumes of "
            "a series as files of their own (nibabel.four_to_three)."
        )
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: its affine cannot place voxels in space (sform and qform of its header).")
    # Floating point of 64 bits is what scaling gives; 32 are enough for grey levels.
    kind = np.float32 if stored.dtype.kind == "f" else stored.dtype.newbyteorder("=")
    unit, codes = image.header.get_xyzt_units()[0], (image.header["sform_code"], image.header["qform_code"])
    layout = Layout(
        shape=stored.shape,
        **_orientation(nibabel, affine, plane),
        affine=affine,
        unit=unit if unit in UNITS else "unknown",
        code=int(codes[0] or codes[1]),
    )
    return Volume(np.ascontiguousarray(layout.read(stored), kind), layout, str(path))


def _orientation(nibabel: Any, affine: np.ndarray, plane: Plane) -> dict[str, Any]:
    """`axes` and `flipped` of a layout."""
    if plane not in _PLANES:
        raise DataError(f'plane must be one of {", ".join(_PLANES)}, got "{plane}".')
    leads = nibabel.aff2axcodes(affine)
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    axes, flipped = [], []
    for wanted in _PLANES[plane]:
        flipped.append(wanted not in leads)
        axes.append(leads.index(opposite[wanted] if flipped[-1] else wanted))
    return {"axes": tuple(axes), "flipped": tuple(flipped)}


def write_nifti(path: Path, values: np.ndarray, layout: Layout) -> None:
    """Writes [slices, H, W] as a file that lies where the volume of that layout does; whole or not at all.

    The header is new: nothing of the volume's own file but its affine, unit and space is in it.

    Args:
        path: a .nii or .nii.gz file.
        values: uint8 [slices, H, W].
        layout: of the volume.

    Raises:
        DataError: another suffix.
        ImportError: the extra `medical` is missing.
    """
    nibabel = _nibabel()
    if not path.name.lower().endswith(SUFFIXES):
        raise DataError(f"Expected the name of a .nii or .nii.gz file to write, got {path}.")
    affine = np.eye(4) if layout.affine is None else layout.affine
    image = nibabel.Nifti1Image(layout.write(values), affine)
    for place in (image.set_sform, image.set_qform):
        place(affine, code=layout.code)
    image.header.set_xyzt_units("unknown" if layout.affine is None else layout.unit)
    with replacing(path) as temporary:
        nibabel.save(image, temporary)
