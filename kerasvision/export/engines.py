"""One way to run any model file: `.tflite`, `.onnx`, a SavedModel folder, `.keras`."""

import abc
import copy
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.errors import ArtifactError
from kerasvision.export.metadata import describe_file, model_metadata, read_metadata

SIGNATURE = "serving_default"
EXPECTED = "Expected a .tflite, .onnx or .keras file or a SavedModel folder."
BATCH = 32


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output of a file.

    Args:
        shape: with the batch axis; -1 where it is open.
        dtype: NumPy name, such as "float32" or "uint8".
        scale: real value of one step of an integer tensor; None for float tensors.
        zero_point: integer that stands for 0.0.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def dequantize(self, values: np.ndarray) -> np.ndarray:
        """Real values, float32, of what the tensor holds."""
        values = values.astype(np.float32)
        if self.scale is None or self.zero_point is None:
            return values
        return (values - np.float32(self.zero_point)) * np.float32(self.scale)

    def get_config(self) -> dict[str, Any]:
        """The fields, in types that JSON knows."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}


class Engine(abc.ABC):
    """A model file, opened, with one image input and named outputs.

    Made by `open_engine`.

    Args:
        path: the file or folder.
        format: "tflite", "onnx", "saved_model" or "keras".
        metadata: what kerasvision packed into the file (`read_metadata`), None for a file of somebody else.
        input: name and tensor of the image, raw pixels 0..255.
        outputs: name -> tensor.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        metadata: dict[str, Any] | None,
        input: tuple[str, TensorSpec],
        outputs: dict[str, TensorSpec],
    ) -> None:
        self.path = path
        self.format = format
        self.metadata = metadata
        self.input_name, self.input = input
        self.outputs = outputs

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.input.shape[1:]

    @property
    def outputs_quantization(self) -> dict[str, tuple[float, int] | None]:
        """Output name -> (scale, zero point), None for float outputs."""
        return {
            name: None if spec.scale is None or spec.zero_point is None else (spec.scale, spec.zero_point)
            for name, spec in self.outputs.items()
        }

    @property
    def signature(self) -> dict[str, Any]:
        """{"inputs": {name: {"shape", "dtype", "scale", "zero_point"}}, "outputs": {...}}."""
        return {
            "inputs": {self.input_name: self.input.get_config()},
            "outputs": {name: spec.get_config() for name, spec in self.outputs.items()},
        }

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file on images.

        Args:
            images: [N, H, W, C] raw pixels 0..255 of any number type; a uint8 input gets them rounded.

        Returns:
            Output name -> float32 [N, ...]; integer outputs are dequantized.

        Raises:
            ValueError: images of another shape.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.input_shape:
            raise ValueError(
                f"{self.path} takes images of shape [N, {', '.join(map(str, self.input_shape))}], "
                f"got {list(images.shape)}."
            )
        if not len(images):
            return {name: np.zeros((0, *spec.shape[1:]), np.float32) for name, spec in self.outputs.items()}
        raw = self._run(self._to_input(images))
        return {name: spec.dequantize(raw[name]) for name, spec in self.outputs.items()}

    def with_probabilities(self) -> "Engine":
        """Of a segmenter, a file that gives the probabilities of the classes too; the file itself where it cannot."""
        return self

    def time_once(self, image: np.ndarray) -> float:
        """Seconds the file takes for one image, [1, H, W, C]."""
        image = self._to_input(image)
        start = time.perf_counter()
        self._run(image)
        return time.perf_counter() - start

    def _to_input(self, images: np.ndarray) -> np.ndarray:
        if self.input.dtype == "uint8" and images.dtype != np.uint8:
            images = np.clip(np.rint(images), 0, 255)
        return np.ascontiguousarray(images, self.input.dtype)

    @abc.abstractmethod
    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Raw outputs for images that already have the input's type."""


def open_engine(path: str | Path, threads: int = 2) -> Engine:
    """Open a model file for running it.

    Args:
        path: `.tflite`, `.onnx`, `.keras`, or a SavedModel folder.
        threads: CPU threads, where the format lets them be chosen (`.tflite` and `.onnx`).

    Raises:
        ArtifactError: no such file, another kind of file, a damaged one, or one with code in it.
        ImportError: an `.onnx` file without the extra "onnx".
    """
    path = Path(path)
    if path.is_dir():
        return _SavedModelEngine(path)
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. {EXPECTED}")
    if path.suffix == ".tflite":
        return _TFLiteEngine(path, threads)
    if path.suffix == ".onnx":
        return _OnnxEngine(path, threads)
    if path.suffix == ".keras":
        return _KerasEngine(path)
    raise ArtifactError(f"{path} is {describe_file(path)}. {EXPECTED}")


class _TFLiteEngine(Engine):
    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        metadata = read_metadata(path)
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path} cannot be run by LiteRT: {_first_line(error)} Export it again.") from error
        inputs, outputs = self._details()
        self._input = _only(path, inputs)[1]["index"]
        self._outputs = {name: details["index"] for name, details in outputs.items()}
        specs = {name: _tflite_spec(details) for name, details in (inputs | outputs).items()}
        name = next(iter(inputs))
        super().__init__(path, "tflite", metadata, (name, specs[name]), {key: specs[key] for key in outputs})

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if SIGNATURE in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(SIGNATURE)
            return runner.get_input_details(), runner.get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        return {item["name"]: item for item in inputs}, {item["name"]: item for item in outputs}

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        results: dict[str, list[np.ndarray]] = {name: [] for name in self._outputs}
        for index in range(len(images)):
            self._interpreter.set_tensor(self._input, images[index : index + 1])
            self._interpreter.invoke()
            for name, tensor in self._outputs.items():
                results[name].append(self._interpreter.get_tensor(tensor))
        return {name: np.concatenate(values) for name, values in results.items()}


def _tflite_spec(details: dict[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    shape, dtype = tuple(int(side) for side in details["shape"]), np.dtype(details["dtype"]).name
    return TensorSpec(shape, dtype, float(scale), int(zero_point)) if scale else TensorSpec(shape, dtype)


class _OnnxEngine(Engine):
    def __init__(self, path: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError('Running .onnx files needs onnxruntime: pip install "kerasvision[onnx]"') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exception types share no public base.
            raise ArtifactError(
                f"{path} is {describe_file(path)} and cannot be run as ONNX: {_first_line(error)} Export it again."
            ) from error
        metadata = read_metadata(path)
        packed = (metadata or {}).get("signature", {})
        inputs = {node.name: _onnx_spec(node, packed.get("inputs", {})) for node in self._session.get_inputs()}
        outputs = {node.name: _onnx_spec(node, packed.get("outputs", {})) for node in self._session.get_outputs()}
        super().__init__(path, "onnx", metadata, _only(path, inputs), outputs)

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        names = list(self.outputs)
        step = _step(self.input)
        results = [
            self._session.run(names, {self.input_name: images[start : start + step]})
            for start in range(0, len(images), step)
        ]
        return {name: np.concatenate(values) for name, values in zip(names, zip(*results, strict=True), strict=True)}


def _onnx_spec(node: Any, packed: dict[str, Any]) -> TensorSpec:
    """ONNX has no quantized tensor type: scale and zero point come from the packed signature."""
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    known = packed.get(node.name, {})
    return TensorSpec(
        tuple(side if isinstance(side, int) else -1 for side in node.shape),
        {"float": "float32", "double": "float64"}.get(dtype, dtype),
        known.get("scale"),
        known.get("zero_point"),
    )


class _SavedModelEngine(Engine):
    def __init__(self, path: Path) -> None:
        if not (path / "saved_model.pb").exists():
            raise ArtifactError(f"{path} is a folder without a saved_model.pb in it. {EXPECTED}")
        import tensorflow as tf

        try:
            self._loaded = tf.saved_model.load(str(path))
            self._function = self._loaded.signatures[SIGNATURE]
        except Exception as error:  # tf.errors, KeyError, protobuf's DecodeError ...: each means a damaged folder.
            raise ArtifactError(f"{path} is a damaged SavedModel: {_first_line(error)} Export it again.") from error
        inputs = {name: _tf_spec(spec) for name, spec in self._function.structured_input_signature[1].items()}
        outputs = {name: _tf_spec(spec) for name, spec in self._function.structured_outputs.items()}
        super().__init__(path, "saved_model", read_metadata(path), _only(path, inputs), outputs)

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        import tensorflow as tf

        step = _step(self.input)
        results = [
            self._function(**{self.input_name: tf.constant(images[start : start + step])})
            for start in range(0, len(images), step)
        ]
        return {name: np.concatenate([result[name].numpy() for result in results]) for name in self.outputs}


def _tf_spec(spec: Any) -> TensorSpec:
    return TensorSpec(tuple(-1 if side is None else int(side) for side in spec.shape), spec.dtype.name)


class _KerasEngine(Engine):
    def __init__(self, path: Path) -> None:
        import keras

        from kerasvision.task import TaskModel

        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # ValueError, KeyError, OSError, BadZipFile ...: Keras has no type of its own.
            if "safe_mode" in str(error):
                raise ArtifactError(
                    f"{path} holds Python code (a Lambda layer) and was refused: loading it could run anything. "
                    "Ask its author for a model without Lambda layers."
                ) from error
            raise ArtifactError(
                f"{path} is {describe_file(path)} and cannot be loaded as a Keras model: {_first_line(error)}"
            ) from error
        if not isinstance(model, TaskModel):
            raise ArtifactError(
                f"{path} holds a {type(model).__name__}, not a model of kerasvision.create_model. "
                "Build it with create_model and load its weights there."
            )
        self.model = model
        image = TensorSpec((-1, *model.image_size, model.channels), "float32")
        super().__init__(path, "keras", model_metadata(model, "none"), ("image", image), {})
        self._decode(model.task)

    def _decode(self, task: Any) -> None:
        """Takes the outputs as a task decodes them."""
        import keras

        self._decoded = keras.Model(self.model.input, task.decode(self.model.output))
        nodes = self._decoded.output.items()
        self.outputs = {name: TensorSpec((-1, *node.shape[1:]), "float32") for name, node in nodes}

    def with_probabilities(self) -> "Engine":
        from kerasvision.segmentation import SegmentationTask

        task = self.model.task
        if not isinstance(task, SegmentationTask) or task.probabilities:
            return self
        engine = copy.copy(self)
        engine._decode(task.with_probabilities())
        return engine

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        results = [self._decoded.predict_on_batch(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        return {name: np.concatenate([result[name] for result in results]) for name in self.outputs}


def _step(image: TensorSpec) -> int:
    return BATCH if image.shape[0] == -1 else image.shape[0]


def _only(path: Path, inputs: dict[str, Any]) -> tuple[str, Any]:
    if len(inputs) != 1:
        raise ArtifactError(f"{path} has the inputs {', '.join(inputs)}; expected one image.")
    return next(iter(inputs.items()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
