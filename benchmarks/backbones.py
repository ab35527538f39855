"""Every backbone's int8 file beside the stock converter's and beside our float file.

    python benchmarks/backbones.py [NAME ...] [--size N] [--threads 1] [--runs 50] [--fresh] [--json]

Each net has 1000 classes, random weights of a fixed seed and its usual image size. The peer is keras.applications with
the same weights and images through TensorFlow's converter (`stock_int8.py`); where there is no such application, the
same Keras graph through that converter. The three files take turns, so that what else the machine does falls on all
alike: a latency is the median of its runs, a ratio the median over the turns.

What was measured is kept in benchmarks/results/backbones.json after each net, and nets that stand there are not
measured again, unless --fresh is given. README.md's table of models is made from it (`make models`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from table import row, show
from turns import processor, take_turns, timer_of_file

import kerasvision as kv
from kerasvision.export.coverage import float_ops, op_histogram, read_graph
from kerasvision.export.samples import synthetic_images
from kerasvision.registry import get_entry
from kerasvision.zoo import count_macs, enliven, own_backbones

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "backbones.json"
CLASSES = 1000
CALIBRATION = 16
# Largest latency of our int8 file as a share of our float file's.
OF_FLOAT = {"mobilenet": 0.55, "efficientnet_lite": 0.55, "resnet50": 0.40}
OF_FLOAT_OTHERS = 1.0
ERROR_LINES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="all backbones when none is given")
    parser.add_argument("--size", type=int, help="side of the images in pixels, instead of each net's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50, help="of each file")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the measured figures")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)  # What this script calls itself with.
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.names[0], arguments.size, arguments.build)
        return
    names = arguments.names or own_backbones()
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for name in names:
        if name in results and not arguments.fresh:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measure(name, arguments.size, arguments.threads, arguments.runs)
        write(arguments.results, results)
    rows = [entry for name in names for entry in rows_of(name, results[name])]
    show(rows, title="Backbones, int8", ours="ours", peer="peer", as_json=arguments.json)


def write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    new.replace(path)


def measure(name: str, size: int | None, threads: int, runs: int) -> dict[str, Any]:
    """Everything about one net; each step in a process of its own, for its memory and because a converter can crash."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = [] if size is None else ["--size", size]
        call(HERE / "backbones.py", name, "--build", folder, *options)
        facts = json.loads((folder / "facts.json").read_text())
        files = {"float": folder / "model_float32.tflite", "int8": folder / "model_int8_ptq.tflite"}
        peer = folder / "peer.tflite"
        try:
            made_from = call(HERE / "stock_int8.py", folder / "model.keras", folder / "images.npy", peer)
            files["peer"] = peer
        except ChildError as error:
            facts["peer"] = {"failed": str(error)}
        milliseconds = take_turns({key: timer_of_file(path, threads) for key, path in files.items()}, runs)
        for key, path in files.items():
            facts[key] = {
                "bytes": path.stat().st_size,
                "ms": round(float(np.median(milliseconds[key])), 3),
                "ops": op_histogram(read_graph(path)),
            }
        facts["int8"]["of_float"] = round(float(np.median(milliseconds["int8"] / milliseconds["float"])), 4)
        if "peer" in files:
            facts["peer"]["made_from"] = made_from
            facts["peer"]["float_ops"] = len(float_ops(read_graph(peer)))
            facts["int8"]["of_peer"] = round(float(np.median(milliseconds["int8"] / milliseconds["peer"])), 4)
    packages = {package: version(package) for package in ("tensorflow", "keras", "ai-edge-litert")}
    return {**facts, "runs": runs, "threads": threads, "processor": processor(), "packages": packages}


class ChildError(Exception):
    """A step failed; the last lines of what it said."""


def call(*command: Any) -> str:
    """Run a Python script; what it printed last."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-ERROR_LINES:]
        raise ChildError(f"exit status {done.returncode}: " + " ".join(lines)[-400:])
    return done.stdout.strip().rsplit("\n", 1)[-1]


def build(name: str, size: int | None, folder: Path) -> None:
    """The net, the images, our two files and what is known of them, into the folder."""
    entry, _ = get_entry(name)
    shape = (size, size, 3) if size else entry.input_shape
    # As with its published weights, so that our files carry the same preprocessing as theirs would.
    preprocessing = entry.weights["imagenet"].preprocessing if "imagenet" in entry.weights else entry.preprocessing
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, num_classes=CLASSES, input_shape=shape, preprocessing=preprocessing)
    images = synthetic_images(CALIBRATION, shape)
    enliven(model, images)
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", images)
    targets = {"label": np.zeros(CALIBRATION, np.int64)}
    common = {"data": (images, targets), "samples": CALIBRATION, "calibration": CALIBRATION, "benchmark": False}
    kv.export(model, folder, quantization="none", **common)
    report = kv.export(model, folder, quantization="int8", **common)
    facts = {
        "input": list(shape),
        "parameters": model.count_params(),
        "macs": count_macs(model),
        "islands": len(report.islands),
        "parity_mean_lsb": round(report.parity["scores"]["lsb"]["mean"], 3),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def rows_of(name: str, facts: dict[str, Any]) -> list[dict]:
    """Latency and size beside the peer's, latency beside our float file's."""
    ours, floating, peer = facts["int8"], facts["float"], facts["peer"]
    failed = "failed" in peer
    case = f"{name} ({'no peer: ' + peer['failed'] if failed else peer['made_from']})"
    peer_bytes = None if failed else peer["bytes"] / 1e6
    bound = next((bound for prefix, bound in OF_FLOAT.items() if name.startswith(prefix)), OF_FLOAT_OTHERS)
    return [
        row(f"{case} latency", ours["ms"], peer.get("ms"), "ms", 1.0, "most", ratio=ours.get("of_peer")),
        row(f"{case} size", ours["bytes"] / 1e6, peer_bytes, "MB", 1.0, "most"),
        row(f"{name} latency of float", ours["ms"], floating["ms"], "ms", bound, "most", ratio=ours["of_float"]),
    ]


if __name__ == "__main__":
    main()
