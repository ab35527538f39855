"""Values for what is missing: numbers of a table, pixels and channels of images; or a channel that says where.

What is filled in is learned from training rows or images alone, in `fit`, and can be saved with the run.
"""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from kerasvision.errors import ArtifactError, DataError, closest
from kerasvision.files import replacing

Method = Literal["mean", "median", "nearest", "bayesian"]
ImageMethod = Literal["mean", "median", "nearest", "bayesian", "inpaint"]

_INPAINT = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}
_METHODS = ("mean", "median", "nearest", "bayesian")


@dataclasses.dataclass
class Imputer:
    """Fills the gaps (NaN) of a table with what was learned from training rows.

    Args:
        method: "mean" or "median" of the column; "nearest": mean of the nearest training rows, by the columns that both
            rows have (Troyanskaya et al., 2001), so columns should be of like units; "bayesian": Bayesian ridge
            regression on other columns, in rounds, kept within the lowest and highest training value (MICE; van Buuren
            & Groothuis-Oudshoorn, 2011).
        neighbors: of "nearest".
        predictors: of "bayesian": columns that a column is predicted from, drawn by their correlation with it.
        rounds: of "bayesian".
        seed: of that draw.

    Raises:
        DataError: no such method.
    """

    method: Method = "mean"
    neighbors: int = 5
    predictors: int = 20
    rounds: int = 3
    seed: int = 0
    state: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise DataError(f'There is no imputation "{self.method}" of a table.{closest(self.method, _METHODS)}')

    def fit(self, table: np.ndarray) -> "Imputer":
        """Learn from training rows.

        Args:
            table: float [N, D], NaN in the gaps; a column of gaps alone is filled with 0. "bayesian" takes time by N^2
                and by D: some hundred rows do.

        Returns:
            Itself.

        Raises:
            DataError: no such table.
        """
        table = _table(table)
        if len(table) == 0:
            raise DataError("There are no rows to learn an imputation from.")
        if self.method == "nearest":
            self.state = {"rows": table}
        elif self.method == "bayesian":
            self.state = self._fit_bayesian(table)
        else:
            from sklearn.impute import SimpleImputer

            fitted = SimpleImputer(strategy=self.method, keep_empty_features=True).fit(table)
            self.state = {"fill": fitted.statistics_.astype(np.float32)}
        return self

    def transform(self, table: np.ndarray) -> np.ndarray:
        """Fill the gaps.

        Args:
            table: float [N, D], NaN in the gaps; it is not changed.

        Returns:
            float32 [N, D].

        Raises:
            DataError: not fitted, or on another number of columns.
        """
        table = _table(table)
        if not self.state:
            raise DataError(f'This "{self.method}" imputation has learned nothing yet. Call fit(training rows) first.')
        columns = self.state["rows" if self.method == "nearest" else "fill"].shape[-1]
        if table.shape[1] != columns:
            raise DataError(f"Expected {columns} columns, as in fit, got {table.shape[1]}.")
        if self.method == "nearest":
            from sklearn.impute import KNNImputer

            nearest = KNNImputer(n_neighbors=self.neighbors, keep_empty_features=True).fit(self.state["rows"])
            return nearest.transform(table).astype(np.float32)
        gaps = np.isnan(table)
        filled = np.where(gaps, self.state["fill"], table)
        return self._regress(filled, gaps) if self.method == "bayesian" else filled

    def save(self, path: str | Path) -> None:
        """Write what was learned to an .npz file."""
        _save(Path(path), "table", self._config(), self.state)

    @classmethod
    def load(cls, path: str | Path) -> "Imputer":
        """Read what `save` wrote.

        Raises:
            ArtifactError: it is no such file.
        """
        config, state = _load(Path(path), "table")
        imputer = cls(**config)
        imputer.state = state
        return imputer

    def _config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def _fit_bayesian(self, table: np.ndarray) -> dict[str, np.ndarray]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        # A tolerance of 0, because in a table without gaps nothing moves: there would be one round.
        imputer = IterativeImputer(
            max_iter=self.rounds,
            n_nearest_features=min(self.predictors, table.shape[1] - 1) or None,
            tol=0.0,
            min_value=np.nanmin(table),
            max_value=np.nanmax(table),
            keep_empty_features=True,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            imputer.fit(table.astype(np.float64))
        steps = imputer.imputation_sequence_
        return {
            "fill": imputer.initial_imputer_.statistics_.astype(np.float32),
            "limits": np.array([np.nanmin(table), np.nanmax(table)], np.float32),
            "column": np.array([step.feat_idx for step in steps], np.int32),
            "predictors": np.array([step.neighbor_feat_idx for step in steps], np.int32),
            "coefficients": np.array([step.estimator.coef_ for step in steps], np.float32),
            "intercept": np.array([step.estimator.intercept_ for step in steps], np.float32),
        }

    def _regress(self, filled: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """The learned regressions in their order: each sees what the ones before it filled in."""
        state = self.state
        low, high = state["limits"]
        for step, column in enumerate(state["column"]):
            rows = np.flatnonzero(gaps[:, column])
            if len(rows):
                known = filled[np.ix_(rows, state["predictors"][step])]
                filled[rows, column] = known @ state["coefficients"][step] + state["intercept"][step]
                filled[rows, column] = np.clip(filled[rows, column], low, high)
        return filled


@dataclasses.dataclass
class ImageImputer:
    """Fills the missing pixels of images.

    Args:
        method: of `Imputer`, each pixel of each channel being a column (for small images: "bayesian" makes a regression
            for each); or "inpaint": from the rim of each gap inwards, image by image, with nothing to learn.
        algorithm: of "inpaint": "telea" (2004, fast marching) or "navier_stokes" (Bertalmio et al., 2001).
        radius: of "inpaint": pixels around a pixel that decide on it.
        table: how the columns are filled; from `method` when None.

    Raises:
        DataError: no such method or algorithm.
    """

    method: ImageMethod = "mean"
    algorithm: Literal["telea", "navier_stokes"] = "telea"
    radius: float = 3.0
    table: Imputer | None = None

    def __post_init__(self) -> None:
        if self.method not in (*_METHODS, "inpaint"):
            known = (*_METHODS, "inpaint")
            raise DataError(f'There is no imputation "{self.method}" of images.{closest(self.method, known)}')
        if self.algorithm not in _INPAINT:
            raise DataError(f'There is no inpainting "{self.algorithm}".{closest(self.algorithm, _INPAINT)}')
        if self.method == "inpaint":
            self.table = None
        elif self.table is None:
            self.table = Imputer(self.method)
        elif self.table.method != self.method:
            raise DataError(f'The method is "{self.method}", but that of the table is "{self.table.method}".')

    def fit(self, images: np.ndarray, missing: np.ndarray | None = None) -> "ImageImputer":
        """Learn from training images.

        Args:
            images: uint8 [N, H, W, C].
            missing: bool [N, H, W], or [N, H, W, C] where single channels are missing; nothing is when None.

        Returns:
            Itself.

        Raises:
            DataError: not such arrays.
        """
        if self.table is not None:
            self.table.fit(_columns(images, np.zeros(images.shape[:3], bool) if missing is None else missing))
        return self

    def transform(self, images: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Fill the missing pixels; the others stay as they are.

        Args:
            images: uint8 [N, H, W, C]; what stands in missing pixels does not count.
            missing: as in `fit`.

        Returns:
            uint8 [N, H, W, C].

        Raises:
            DataError: not such arrays, not fitted on images of this size, or an image without a pixel to inpaint from.
        """
        gaps = _spread(images, missing)
        if self.table is None:
            return np.stack(
                [self._inpaint(image, gap, i) for i, (image, gap) in enumerate(zip(images, gaps, strict=True))]
            )
        values = self.table.transform(_columns(images, missing)).reshape(images.shape)
        return np.where(gaps, np.clip(np.rint(values), 0, 255).astype(np.uint8), images)

    def save(self, path: str | Path) -> None:
        """Write what was learned to an .npz file."""
        config = {"method": self.method, "algorithm": self.algorithm, "radius": self.radius}
        table = {} if self.table is None else {"table": self.table._config()}
        _save(Path(path), "images", config | table, {} if self.table is None else self.table.state)

    @classmethod
    def load(cls, path: str | Path) -> "ImageImputer":
        """Read what `save` wrote.

        Raises:
            ArtifactError: it is no such file.
        """
        config, state = _load(Path(path), "images")
        if "table" in config:
            config["table"] = Imputer(**config["table"])
            config["table"].state = state
        return cls(**config)

    def _inpaint(self, image: np.ndarray, gap: np.ndarray, index: int) -> np.ndarray:
        if gap.all(axis=(0, 1)).any():
            raise DataError(
                f"Image {index} has no pixel to inpaint from in a channel. Fill missing channels with another method, "
                'such as "mean".'
            )
        flag = _INPAINT[self.algorithm]
        whole = image.shape[-1] in (1, 3) and bool((gap == gap[..., :1]).all())
        parts = [slice(None)] if whole else [slice(channel, channel + 1) for channel in range(image.shape[-1])]
        # OpenCV's gradients look into the gaps a little.
        filled = np.where(gap, np.rint(image.mean(axis=(0, 1), where=~gap)), image).astype(np.uint8)
        for part in parts:
            pixels = np.ascontiguousarray(filled[..., part])
            mask = gap[..., part][..., 0].astype(np.uint8)
            filled[..., part] = cv2.inpaint(pixels, mask, self.radius, flag).reshape(pixels.shape)
        return np.where(gap, filled, image)


def mask_channel(images: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Images with a channel more, that tells the net where pixels are missing.

    Args:
        images: uint8 [..., H, W, C].
        missing: bool [..., H, W].

    Returns:
        uint8 [..., H, W, C + 1]: missing pixels are 0, and the last channel is 255 where nothing is missing.

    Raises:
        DataError: the shapes do not fit.
    """
    if missing.shape != images.shape[:-1]:
        raise DataError(f"Expected missing {images.shape[:-1]} for images {images.shape}, got {missing.shape}.")
    seen = ~missing.astype(bool)[..., None]
    return np.concatenate([images * seen, np.where(seen, 255, 0)], axis=-1).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class MaskChannel:
    """Transform: the example's "missing", bool [H, W], becomes the last channel of its image (see `mask_channel`)."""

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """A new example, without "missing"."""
        if "missing" not in example:
            raise DataError(f'A mask channel needs "missing", bool [H, W]; the example has {", ".join(example)}.')
        kept = {name: value for name, value in example.items() if name != "missing"}
        return {**kept, "image": mask_channel(example["image"], example["missing"])}


def _table(table: np.ndarray) -> np.ndarray:
    table = np.asarray(table, np.float32)
    if table.ndim != 2 or np.isinf(table).any():
        raise DataError(f"Expected a table [N, D] of finite numbers and NaN, got {table.dtype} {table.shape}.")
    return table


def _spread(images: np.ndarray, missing: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"Expected images uint8 [N, H, W, C], got {images.dtype} {images.shape}.")
    if missing.shape not in (images.shape, images.shape[:3]) or missing.dtype != bool:
        raise DataError(
            f"Expected missing bool {images.shape[:3]} or {images.shape}, got {missing.dtype} {missing.shape}."
        )
    return np.broadcast_to(missing if missing.ndim == 4 else missing[..., None], images.shape)


def _columns(images: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """float32 [N, H * W * C], NaN where something is missing."""
    return np.where(_spread(images, missing), np.float32(np.nan), images).reshape(len(images), -1)


def _save(path: Path, kind: str, config: dict[str, Any], state: dict[str, np.ndarray]) -> None:
    if path.suffix != ".npz":
        raise DataError(f"An imputation is written to a file .npz, got {path}.")
    header = json.dumps({"kerasvision": "imputation", "of": kind, "config": config})
    with replacing(path) as temporary:
        np.savez_compressed(temporary, header=np.array(header), **state)  # type: ignore[arg-type]


def _load(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
        header = json.loads(str(state.pop("header")))
        if (header["kerasvision"], header["of"]) != ("imputation", kind):
            raise ValueError(f"it holds {header}")
    # A damaged archive fails in many ways, each with a class of its own.
    except Exception as error:
        raise ArtifactError(f"{path} is not a saved imputation of {kind}: {error}") from error
    return header["config"], state
