"""One Predictor for every artifact: a run folder, `.keras`, `.tflite`, a SavedModel folder, `.onnx`."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasvision.class_maps import class_maps
from kerasvision.data import Data, load_data, load_image
from kerasvision.data.decode import read_image, unfit_classes
from kerasvision.detections import BOX_MASKS, MASKS, Detections, Found
from kerasvision.errors import ArtifactError, DataError
from kerasvision.export.engines import Engine, open_engine
from kerasvision.predictions import Images, ImageSource, Predictions, image_sources
from kerasvision.preprocessing import Preprocessing
from kerasvision.progress import track
from kerasvision.registry import get_task
from kerasvision.run_data import (
    align_labels,
    few,
    join,
    judged_targets,
    load_recipe_data,
    needs_class_maps,
    recipe_of,
    same_source,
    splits_of,
    to_model_order,
)
from kerasvision.segmentation import SegmentationTask
from kerasvision.segmentations import Segmentations

Arrays = dict[str, np.ndarray]

RUN_MODEL = "model.keras"
BATCH = 32
KINDS = {"classification": "a classifier", "detection": "a detector", "segmentation": "a segmenter"}
# What tasks of many outputs are judged by; masks of a whole data set are not held.
JUDGED = {"detection": ("boxes", "scores", "classes", "count"), "segmentation": ("classes",)}


def load(path: str | os.PathLike[str], threads: int = 2) -> "Predictor":
    """Opens any artifact of kerasvision.

    Args:
        path: a run folder (its model.keras), a `.keras`, `.tflite` or `.onnx` file, or a SavedModel folder.
        threads: CPU threads, where the format lets them be chosen.

    Raises:
        ArtifactError: nothing there, damaged, refused for the code in it, or not written by kerasvision.
    """
    path = Path(path)
    engine = open_engine(model_path(path), threads)
    return Predictor(engine, path, engine.format if model_path(path) == path else "run")


def model_path(path: Path) -> Path:
    """The model's own file or folder: of a run folder its model.keras, else the artifact itself.

    Raises:
        ArtifactError: nothing there, or a folder that is neither a run nor a SavedModel.
    """
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. {_neighbours(path)}")
    if path.is_file() or (path / "saved_model.pb").exists():
        return path
    if not (path / RUN_MODEL).exists():
        raise ArtifactError(
            f"{path} holds neither a run (no {RUN_MODEL}) nor a SavedModel (no saved_model.pb). "
            f"{_neighbours(path / RUN_MODEL)}"
        )
    return path / RUN_MODEL


class Predictor:
    """A model ready for use, whatever it is stored as: raw pixels in, decoded predictions out.

    Made by `kerasvision.load`.

    Args:
        engine: the opened file.
        path: what the user named.
        format: "run", "keras", "tflite", "saved_model" or "onnx".

    Raises:
        ArtifactError: the file carries no description of itself by kerasvision.
    """

    # Images that `predict` reads and predicts together.
    batch = BATCH
    # Whether images are brought to the net's size.
    resizes = True

    def __init__(self, engine: Engine, path: Path, format: str) -> None:
        facts = _facts(engine, path)
        self.engine = engine
        self.path = path
        self.format = format
        try:
            arguments = dict(facts["task"])
            self.task = get_task(arguments.pop("name"))(**arguments)
            self.name: str = facts["name"]
            self.preprocessing = Preprocessing.from_config(facts["preprocessing"])
            self.image_size: tuple[int, int] = (int(facts["image_size"][0]), int(facts["image_size"][1]))
            self.channels = int(facts["channels"])
            self.quantization: str = facts["quantization"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ArtifactError(
                f"{path} describes itself in a way this version cannot read ({error!r}); it was written by "
                f"kerasvision {facts.get('kerasvision', 'of an unknown version')}. Export it again."
            ) from error

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.task.labels

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return bool(getattr(self.task, "multi_label", False))

    @property
    def detects(self) -> bool:
        """Whether it says what is where, in boxes."""
        return self.task.name == "detection"

    @property
    def kind(self) -> str:
        """What it is in words, such as "a classifier"."""
        return KINDS[self.task.name]

    def __repr__(self) -> str:
        height, width = self.image_size
        return (
            f"Predictor({str(self.path)!r}: {self.name}, {self.format}, {len(self.labels)} labels, "
            f"{height}x{width}x{self.channels})"
        )

    def run(self, images: np.ndarray) -> Arrays:
        """Runs the model on pixels of its own size.

        Args:
            images: [N, H, W, C], uint8 or float 0..255.

        Returns:
            Decoded outputs, float32, such as {"scores": [N, K]}.

        Raises:
            ValueError: images of another shape.
        """
        return self.engine.run(images)

    def predict(
        self,
        images: Images,
        top: int = 5,
        on_bad_files: Literal["stop", "skip"] = "stop",
        *,
        score: float = 0.5,
    ) -> Predictions | Detections | Segmentations:
        """Predicts images of any size, fitted to the model's size as its training data was.

        Args:
            images: a file, a folder (all images below it), pixels [H, W, C] or [N, H, W, C], a PIL image,
                or a list of these.
            top: labels that a classifier's result shows for each image.
            on_bad_files: "stop" raises and names every bad file; "skip" warns and leaves them out.
            score: least score of the boxes that a detector's result shows; it holds all of them.

        Returns:
            Predictions of a classifier, Detections of a detector, Segmentations of a segmenter.

        Raises:
            DataError: an image cannot be used, or there is none.
        """
        sources = image_sources(images)
        kept: list[ImageSource] = []
        bad: list[str] = []
        results: list[Any] = []
        pixels: list[np.ndarray] = []
        sizes: list[tuple[int, int]] = []
        for index, source in enumerate(track(sources, "Predicting")):
            try:
                original = read_image(source)
                image = self._fit(original)
            except DataError as error:
                bad.append(str(error) if isinstance(source, str) else f"Image {index}: {error}")
                continue
            if bad and on_bad_files == "stop":
                continue  # The rest is only looked at, to name all bad images together.
            kept.append(source)
            pixels.append(image)
            sizes.append((original.shape[0], original.shape[1]))
            if len(pixels) == self.batch:
                results += self._read(np.stack(pixels), sizes)
                pixels, sizes = [], []
        if bad and (on_bad_files == "stop" or not kept):
            raise DataError(_bad_images(bad, len(sources)))
        if pixels:
            results += self._read(np.stack(pixels), sizes)
        if bad:
            listed = "\n".join(f"  {reason}" for reason in bad)
            warnings.warn(f"{len(bad)} of {len(sources)} images are left out:\n{listed}", stacklevel=2)
        if self.detects:
            return Detections(tuple(kept), tuple(results), self.labels, score)
        if isinstance(self.task, SegmentationTask):
            seen = self.image_size if self.resizes else None
            settings = (self.task.border, self.task.min_area, self.task.neck, seen)
            return Segmentations(tuple(kept), tuple(results), self.labels, *settings)
        return Predictions(tuple(kept), np.stack(results), self.labels, self.multi_label, top)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels [H, W, C] of an image of any size as `_read` takes them."""
        return load_image(pixels, self.image_size, self.channels, self.preprocessing)

    def _read(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Of each image of a batch its scores [K], or what was found, in pixels of the image of that size."""
        outputs = self.run(pixels)
        if self.task.name == "segmentation":
            return [
                unfit_classes(np.rint(classes), size, self.image_size, self.preprocessing)
                for classes, size in zip(outputs["classes"], sizes, strict=True)
            ]
        if not self.detects:
            return list(outputs["scores"])
        return [
            Found.from_outputs(
                {name: values[index] for name, values in outputs.items()}, size, self.image_size, self.preprocessing
            )
            for index, size in enumerate(sizes)
        ]

    @property
    def segments(self) -> bool:
        """Whether it gives a mask in the box of each object that it detects."""
        return BOX_MASKS in self.engine.outputs

    def judged(self, data: Any, split: str = "test") -> Iterator[tuple[Arrays, Arrays]]:
        """Runs the model over a data set, batch by batch.

        Args:
            data: `Data`, something `load_data` takes, or batches of (images [B, H, W, C] 0..255, targets).
            split: "train", "validation", "test", or "all"; batches have no splits, and of data that has one
                split only, that one is taken for "test".

        Yields:
            Targets {"label": [B]} or {"labels": [B, K]}, in the model's order of labels, and decoded
            predictions. Of a detector the targets are {"boxes": [B, M, 4] in pixels of the model's input, "classes",
            "valid", "crowd": [B, M]}, and "masks" [B, M, H, W] where it gives masks and the data has them; the boxes
            of the predictions are shares of its sides. Of a segmenter they are {"segmentation": [B, H, W]}, and
            "instances" where the data has them, in pixels of the model's input as the predictions are.

        Raises:
            DataError: no such split, an empty one, data for another task, or labels that are not the model's.
        """
        order = None
        if isinstance(data, str | os.PathLike):
            data = self.load_data(data, split=split)
        if isinstance(data, Data):
            order = align_labels(self, data)
            data = self._batches(data, split)
        empty = True
        for images, wanted in data:
            empty = False
            if not isinstance(wanted, Mapping) and not self.detects:
                single = "segmentation" if self.task.name == "segmentation" else "label"
                wanted = {"labels" if self.multi_label else single: wanted}
            targets = judged_targets(self, wanted)
            if order is not None:
                targets = to_model_order(targets, order, len(self.labels))
            yield targets, self.run(np.asarray(images))
        if empty:
            raise DataError("The data set to evaluate on is empty.")

    def collect(self, data: Any, split: str = "test") -> tuple[Arrays, Arrays]:
        """What `judged` gives as a whole, targets and predictions [N, ...], without masks and maps of probabilities."""
        targets: list[Arrays] = []
        predictions: list[Arrays] = []
        for wanted, found in self.judged(data, split):
            targets.append({name: values for name, values in wanted.items() if name != MASKS})
            predictions.append({name: found[name] for name in JUDGED.get(self.task.name, found)})
        return join(targets), join(predictions)

    def evaluate(self, data: Any, split: str = "test") -> dict[str, float]:
        """Figures of the task over a data set; `judged` says what is taken, and what is raised."""
        meter = self.task.meter()
        for targets, predictions in self.judged(data, split):
            meter.update(targets, predictions)
        return meter.result()

    def load_data(
        self,
        source: str | os.PathLike[str] | None = None,
        format: str | None = None,
        *,
        split: str = "test",
        on_bad_files: Literal["stop", "skip"] | None = None,
    ) -> Data:
        """Loads data to judge the model on, split as its run had it where it is the data of its run.

        Args:
            source: what `load_data` takes; the run's data when None.
            format: as for `load_data`.
            split: the split that will be used: only for "train" and "validation" is other data divided at all.
            on_bad_files: as for `load_data`; as in the run, else "stop", when None.

        Raises:
            DataError: there is no source, or it cannot be used.
        """
        recipe = recipe_of(self.path)
        if source is None and recipe is None:
            raise DataError(f"{self.path} does not stand in a run folder, so its data is not known: name the data.")
        if recipe is not None and (source is None or same_source(source, recipe.data.source)):
            return load_recipe_data(recipe.data, format, on_bad_files)
        loaded = load_data(
            os.fspath(source),  # type: ignore[arg-type]
            format,
            validation_fraction=0.1 if split in ("train", "validation") else 0.0,
            on_bad_files=on_bad_files or "stop",
            multi_label=self.multi_label,
        )
        if not isinstance(self.task, SegmentationTask) or not needs_class_maps(loaded, self.task.border):
            return loaded
        known = None if recipe is None else recipe.data.class_maps
        return loaded.with_class_maps(class_maps({"border": self.task.border is not None} if known is None else known))

    def _batches(self, data: Data, split: str) -> Iterable[tuple[Any, Any]]:
        chosen = splits_of(data, split)
        total = sum(-(-len(data.splits[name]) // BATCH) for name in chosen)
        batches = (
            batch
            for name in chosen
            for batch in data.batches(
                name,
                image_size=self.image_size,
                channels=self.channels,
                preprocessing=self.preprocessing,
                batch_size=BATCH,
                cache=False,
                mask_stride=1 if self.segments else None,
            )
        )
        return track(batches, f"Evaluating {self.path.name}", total)


def evaluate(artifact: str | os.PathLike[str] | Predictor, data: Any, split: str = "test") -> dict[str, float]:
    """Figures of an artifact over a data set.

    The same pixels go to every kind of artifact, and the same function judges what comes out.

    Args:
        artifact: anything `load` takes, or a loaded Predictor.
        data: `Data`, something `load_data` takes, or batches of (images, targets).
        split: "train", "validation", "test" or "all".

    Returns:
        name -> value, such as {"accuracy": 0.98}.

    Raises:
        ArtifactError: the artifact cannot be used.
        DataError: the data cannot be used with it.
    """
    predictor = artifact if isinstance(artifact, Predictor) else load(artifact)
    return predictor.evaluate(data, split)


def _facts(engine: Engine, path: Path) -> dict[str, Any]:
    if engine.metadata is None:
        raise ArtifactError(
            f"{path} was not written by kerasvision: it does not say what labels and preprocessing it needs. "
            "Export the model with kerasvision.export."
        )
    return engine.metadata


def _neighbours(path: Path) -> str:
    expected = "Expected a run folder, a .keras, .tflite or .onnx file, or a SavedModel folder."
    if not path.parent.is_dir():
        return expected
    usable = [
        other.name
        for other in sorted(path.parent.iterdir())
        if other.suffix in (".keras", ".tflite", ".onnx")
        or (other / RUN_MODEL).exists()
        or (other / "saved_model.pb").exists()
    ]
    return expected + (f" In {path.parent} there are: {few(usable)}." if usable else "")


def _bad_images(bad: Sequence[str], total: int) -> str:
    if len(bad) == 1:
        return bad[0] if total == 1 else f"{bad[0]} The other {total - 1} images are fine; leave this one out."
    listed = "\n".join(f"  {reason}" for reason in bad)
    return f"{len(bad)} of {total} images cannot be used; repair them or leave them out:\n{listed}"
