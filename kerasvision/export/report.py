"""What is known about an exported file."""

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """An exported file, and the proof that it does what the model does.

    Args:
        path: of the file or SavedModel folder.
        format: "tflite", "saved_model" or "onnx".
        quantization: "none", "float16", "dynamic", "int8" (by calibration) or "qat".
        signature: {"inputs": {name: {"shape", "dtype", "scale", "zero_point"}}, "outputs": {...}}.
        size_bytes: of the file, or of all files in the folder.
        zip_bytes: of the same in a zip archive, as an app's package holds it.
        parameters: of the net.
        labels: class names in the order of the scores.
        samples: number of images that file and model were compared on.
        samples_source: "data" or "synthetic".
        parity: output name -> {"max", "mean", "p99", "lsb": {"max", "mean", "p99"} | None}, absolute differences; of a
            detector's `.tflite` file also of the net's raw outputs, and for "boxes" and "scores" of detections that lie
            at the same place.
        detections: of a detector, how many detections of file and model belong together: {"file", "model", "matched",
            "iou", "alone", "alone_allowed"}, see `detections.Verdict`; {} for other tasks.
        metrics: of the file on metric_data; {} without.
        reference_metrics: of the model on the same.
        latency: {"median_ms", "p90_ms", "runs", "threads"}; {} where it was not measured.
        ops: op name -> how often, for `.tflite` files.
        decode_ops: those of them that decode in float32 behind the net; {} where decoding is a part of the net.
        float_ops: [{"op", "tensor", "layer"}], for integer files: those of declared islands.
        islands: names of the layers that were left in float on purpose.
        layers: of `explain`: [{"tensor", "op", "low", "high", "mean_lsb", "max_lsb", "alone_lsb", "noise_db"}], or [].
        seconds: that the export took.
    """

    path: Path
    format: str
    quantization: str
    signature: dict[str, Any]
    size_bytes: int
    zip_bytes: int
    parameters: int
    labels: tuple[str, ...]
    samples: int
    samples_source: str
    parity: dict[str, Any]
    detections: dict[str, float]
    metrics: dict[str, float]
    reference_metrics: dict[str, float]
    latency: dict[str, Any]
    ops: dict[str, int]
    decode_ops: dict[str, int]
    float_ops: list[dict[str, str]]
    islands: tuple[str, ...]
    layers: list[dict[str, Any]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, in types that JSON knows."""
        return {
            **dataclasses.asdict(self),
            "path": str(self.path),
            "labels": list(self.labels),
            "islands": list(self.islands),
        }
