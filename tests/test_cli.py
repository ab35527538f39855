"""The command line: one JSON object or a table, clear errors with exit codes, heavy imports only where needed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import kerasvision as kv
from kerasvision.cli import main
from kerasvision.cli.recipes import input_shape, recipe_and_folder
from kerasvision.data import Data
from kerasvision.demo import digits
from kerasvision.recipe import load_recipe, to_dict

ROOT = Path(kv.__file__).parents[1]
VERBS = ("list", "train", "evaluate", "predict", "export", "benchmark", "inspect", "convert", "demo")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def call_json(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kerasvision", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of tiny images, and the run of a small recipe on them, made by the verb itself."""
    folder = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 50), ("light", 200)):
        (folder / "images" / label).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(rng.normal(level, 30, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{index:02}.png")
    result = call(
        *("train", "--task", "classification", "--model", "small_cnn", "--data", folder / "images", "--epochs", 2),
        *("model.arguments.filters=[4,8]", "model.arguments.depth=1", "quantize.epochs=1", "export.samples=8"),
        *("export.benchmark=false", "--out", folder / "run", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    (folder / "train.json").write_text(result.stdout)
    return folder


def test_help_is_fast_and_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys\nfrom kerasvision.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb):
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output and "--debug" in result.output


def test_version():
    assert kv.__version__ in call("--version").output


def test_list():
    models = {model["name"]: model for model in call_json("list")["models"]}
    assert set(models) == set(kv.list_models())
    assert models["small_cnn"]["input_shape"] == [32, 32, 3] and models["small_cnn"]["weights"] == {}
    assert models["mobilenet_v2"]["weights"]["imagenet"]["parameters"] > 3_000_000
    assert models["retinanet"]["tasks"] == ["detection"] and not models["retinanet"]["backbone"]
    for task in ("classification", "detection", "segmentation"):
        table = call("list", "--task", task).stdout
        # Other tests register nets of their own, with names of any length.
        own = {name for name in kv.list_models(task) if not name.startswith("test_")}
        assert {name for name in models if f"{name} " in table} >= own
    assert "small_cnn" not in table


def test_train_makes_a_whole_run(workspace):
    printed = json.loads((workspace / "train.json").read_text())
    assert printed["run"] == str(workspace / "run")
    assert printed["metrics"]["split"] == "test"
    assert Path(printed["report"]).read_text().startswith("<!doctype html>")
    recipe = load_recipe(workspace / "run" / "recipe.yaml")
    assert recipe.model.input_shape == (8, 8, 3) and recipe.train.epochs == 2
    assert recipe.model.arguments == {"filters": [4, 8], "depth": 1}
    files = {Path(report["path"]).name: report for report in printed["exports"]}
    assert set(files) == {"model_float32.tflite", "model_int8.tflite"}
    assert files["model_int8.tflite"]["float_ops"] == []


def test_a_finished_run_prints_its_table_again(workspace):
    result = call("train", workspace / "run" / "recipe.yaml", "--out", workspace / "run")
    assert result.exit_code == 0
    assert "finished already" in result.stderr
    for wanted in ("Accuracy", "model_int8.tflite", "Report:", str(workspace / "run" / "report.html")):
        assert wanted in result.stdout


def test_another_recipe_does_not_overwrite_a_run(workspace):
    result = call("train", workspace / "run" / "recipe.yaml", "train.epochs=3", "--out", workspace / "run")
    assert result.exit_code == 1
    assert "train.epochs: 2 -> 3" in result.stderr and "--overwrite" in result.stderr


def test_evaluate_gives_the_same_metric_for_run_saved_model_and_float_tflite(workspace):
    call_json("export", workspace / "run", "--format", "saved_model")
    exports = workspace / "run" / "exports"
    found = [
        call_json("evaluate", artifact, "--data", workspace / "images")
        for artifact in (workspace / "run", exports / "model_saved_model", exports / "model_float32.tflite")
    ]
    assert found[0]["metrics"] == found[1]["metrics"] == found[2]["metrics"]
    assert found[0]["split"] == "test" and found[0]["images"] == 4
    trained = json.loads((workspace / "train.json").read_text())["metrics"]["float"]
    assert found[0]["metrics"]["accuracy"] == trained["accuracy"]
    table = call("evaluate", workspace / "run", "--split", "all").stdout
    assert "on 40 images" in table and "Accuracy" in table


def test_evaluate_without_such_a_split(workspace):
    result = call("evaluate", workspace / "run", "--split", "tets", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)
    assert error["kind"] == "DataError"
    assert "train (32 images), validation (4 images), test (4 images)" in error["error"]
    assert "Traceback" not in result.stderr


def test_predict_a_folder(workspace, tmp_path):
    artifact = workspace / "run" / "exports" / "model_int8.tflite"
    found = call_json("predict", artifact, workspace / "images" / "dark", "--top", 1, "--out", tmp_path / "out")
    assert len(found["predictions"]) == 20
    assert all(len(entry["top"]) == 1 and entry["image"].endswith(".png") for entry in found["predictions"])
    assert len(list((tmp_path / "out").glob("*_prediction.png"))) == 20
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    table = call("predict", workspace / "run", workspace / "images" / "light" / "03.png").stdout
    assert "03.png" in table and "light" in table and "%" in table


def test_predict_names_bad_images_and_can_leave_them_out(workspace, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    good = workspace / "images" / "dark" / "00.png"
    stopped = call("predict", workspace / "run", good, tmp_path / "bad.jpg")
    assert stopped.exit_code == 1 and "bad.jpg" in stopped.stderr and stopped.stdout == ""
    skipped = call("predict", workspace / "run", good, tmp_path / "bad.jpg", "--skip-bad-files")
    assert skipped.exit_code == 0 and "00.png" in skipped.stdout
    assert "Warning" in skipped.stderr and "bad.jpg" in skipped.stderr


def test_an_export_joins_the_run_s_metrics_and_report(workspace):
    call_json("export", workspace / "run", "--quantization", "int8")
    exports = json.loads((workspace / "run" / "metrics.json").read_text())["exports"]
    names = [Path(report["path"]).name for report in exports]
    assert "model_int8_ptq.tflite" in names and len(names) == len(set(names))
    report = (workspace / "run" / "report.html").read_text()
    assert "model_int8_ptq.tflite" in report and "Example predictions" in report


def test_export_qat_takes_the_weights_the_run_has(workspace, tmp_path):
    before = (workspace / "run" / "quantized.weights.h5").read_bytes()
    report = call_json("export", workspace / "run", "--quantization", "qat", "--out", tmp_path)
    assert report["float_ops"] == [] and report["samples_source"] == "data"
    assert (tmp_path / "model_int8.tflite").exists()
    assert (workspace / "run" / "quantized.weights.h5").read_bytes() == before
    first = json.loads((workspace / "train.json").read_text())["exports"][1]
    assert report["metrics"] == first["metrics"]


def test_export_of_a_bare_keras_file(workspace, tmp_path):
    model = tmp_path / "model.keras"
    model.write_bytes((workspace / "run" / "model.keras").read_bytes())
    report = call_json("export", model)
    assert report["samples_source"] == "synthetic" and report["metrics"] == {}
    assert (tmp_path / "exports" / "model_float32.tflite").exists()
    for quantization in ("int8", "qat"):
        result = call("export", model, "--quantization", quantization)
        assert result.exit_code == 1 and "--data" in result.stderr
    tuned = call_json("export", model, "--quantization", "qat", "--data", workspace / "images")
    assert tuned["float_ops"] == [] and tuned["metrics"]


def test_relative_paths(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    report = call_json("export", "run", "--quantization", "float16", "--out", "exported")
    assert report["path"] == str(Path("exported", "model_float16.tflite"))
    assert Path(report["path"]).exists()
    assert call_json("predict", report["path"], "images/dark")["predictions"][0]["image"] == "images/dark/00.png"


def test_export_of_an_exported_file(workspace):
    result = call("export", workspace / "run" / "exports" / "model_float32.tflite")
    assert result.exit_code == 1 and "exported file already" in result.stderr


@pytest.mark.parametrize(("option", "wrong"), [("--format", "tflight"), ("--quantization", "flaot16")])
def test_unknown_export_names_give_those_that_exist(workspace, option, wrong):
    result = call("export", workspace / "run", option, wrong)
    assert result.exit_code == 1
    assert {"--format": 'Did you mean "tflite"', "--quantization": "none, float16"}[option] in result.stderr


def test_benchmark(workspace, monkeypatch):
    files = [workspace / "run", workspace / "run" / "exports" / "model_int8.tflite"]
    rows = call_json("benchmark", *files, "--runs", 3, "--threads", 1)["rows"]
    assert [row["artifact"] for row in rows] == [str(file) for file in files]
    assert all(row["median_ms"] > 0 and row["size_bytes"] > 0 and row["runs"] == 3 for row in rows)
    monkeypatch.chdir(files[1].parent)
    table = call("benchmark", files[1].name, "--runs", 2).stdout
    assert "median" in table and "model_int8.tflite" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nothing.tflite", "--data", "digits"], "nothing.tflite does not exist"),
        (["list", "--task", "clasification"], 'Did you mean "classification"'),
        (["train", "--model", "small_cn", "--data", "digits"], 'Did you mean "small_cnn"'),
        (["train", "--model", "small_cnn", "--data", "digit"], 'Did you mean "digits"'),
        (["train", "--model", "small_cnn", "--data", "digits", "train.epoch=3"], 'Did you mean "epochs"'),
        (["train", "nothing.py"], "no recipe file nothing.py"),
    ],
)
def test_unknown_names_are_errors_of_one_message(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr
    as_json = call(*arguments, "--json")
    assert message in json.loads(as_json.stdout)["error"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "--model", "small_cnn"],
        ["train", "a.py", "b.py"],
        ["train", "a.py", "--model", "small_cnn"],
        ["predict", "model.tflite"],
        ["benchmark"],
        ["evaluate"],
        ["bake"],
        ["list", "--bogus"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    assert call(*arguments).exit_code == 2


def test_debug_shows_the_traceback():
    result = call("evaluate", "nothing.tflite", "--data", "digits", "--debug")
    assert result.exit_code == 1 and "Traceback" in result.stderr


def test_an_unexpected_error_says_so(monkeypatch):
    monkeypatch.setattr("kerasvision.registry.list_models", lambda task: 1 / 0)
    result = call("list")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr and "--debug" in result.stderr


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "x.png"), PermissionError(13, "Denied", "y")])
def test_errors_of_the_system_name_the_file(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("kerasvision.runtime.load", fail)
    result = call("predict", "m.tflite", "i.png")
    assert result.exit_code == 1 and f"{error.strerror}: {error.filename}" in result.stderr


def test_ctrl_c_exits_with_130(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kerasvision.runtime.load", interrupt)
    result = call("predict", "m.tflite", "i.png", "--json")
    assert result.exit_code == 130
    assert "Stopped" in result.stderr and json.loads(result.stdout)["kind"] == "KeyboardInterrupt"


def test_standard_output_carries_the_json_alone(workspace):
    done = run("evaluate", workspace / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]
    assert "tensorflow" not in done.stderr.lower() or "XNNPACK" in done.stderr


def test_stray_output_goes_to_standard_error():
    code = (
        "import os, sys, click\nfrom kerasvision.cli.verb import Result, Verb\n"
        "def work():\n"
        "    print('from python'); os.write(1, b'from below\\n'); os.system('echo from a child')\n"
        "    return Result({'answer': 42}, lambda console: console.print('table'))\n"
        "Verb('work', callback=work)(sys.argv[1:])"
    )
    for arguments, expected in ((["--json"], '{\n  "answer": 42\n}\n'), ([], "table\n")):
        command = [sys.executable, "-c", code, *arguments, "--debug"]  # which also spares the import of TensorFlow
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == expected
        assert all(f"from {source}" in done.stderr for source in ("python", "below", "a child"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_real_ctrl_c_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-m", "kerasvision", "demo", "--out", str(tmp_path / "run")]
    # A shell that runs the tests in the background has them, and their children, ignore Ctrl-C.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoint" / "state.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and "Stopped" in err and "Traceback" not in err
    left = [file.name for file in (tmp_path / "run").iterdir()]
    assert not {"model.keras", "metrics.json", "report.html"} & set(left)
    assert not [name for name in left if name.startswith(".")]


def options(**changes) -> dict:
    names = ("task", "model", "weights", "data", "data_format", "epochs", "out")
    return dict.fromkeys(names) | {"skip_bad_files": False} | changes


def test_the_demo_recipe_is_that_of_the_pipeline():
    assert to_dict(load_recipe(ROOT / "pipelines" / "digits.py")) == to_dict(digits())


def test_options_change_a_recipe_file():
    file = str(ROOT / "pipelines" / "digits.py")
    given = options(epochs=4, data='a "quoted" \\ name', skip_bad_files=True)
    recipe, folder = recipe_and_folder((file, "quantize.epochs=1"), **given)
    assert (recipe.train.epochs, recipe.quantize.epochs) == (4, 1)
    assert recipe.data.source == 'a "quoted" \\ name' and recipe.data.on_bad_files == "skip"
    assert folder == Path("saved_models/digits")


def test_a_recipe_made_from_options():
    recipe, folder = recipe_and_folder((), **options(model="small_cnn", data="digits"))
    assert folder == Path("saved_models/small_cnn-digits")
    assert recipe.model.input_shape == (8, 8, 1)
    assert recipe.export.formats == (("tflite", "none"), ("tflite", "qat"))


def test_trained_weights_are_offered_and_used(capsys):
    recipe, _ = recipe_and_folder((), **options(model="mobilenet_v2", data="digits"))
    assert recipe.model.weights is None and recipe.model.input_shape == (32, 32, 1)
    assert "--weights imagenet" in capsys.readouterr().err
    recipe, _ = recipe_and_folder((), **options(model="mobilenet_v2", data="digits", weights="imagenet"))
    assert recipe.model.input_shape == (32, 32, 3) and recipe.train.freeze_epochs > 0


@pytest.mark.parametrize(
    ("image", "default", "pretrained", "expected"),
    [
        ((28, 28), (32, 32, 3), False, (28, 28, 1)),
        ((28, 28), (224, 224, 3), False, (32, 32, 1)),
        ((48, 64, 3), (224, 224, 3), False, (48, 64, 3)),
        ((48, 64), (224, 224, 3), True, (48, 64, 3)),
        ((300, 400, 3), (224, 224, 3), False, (224, 224, 3)),
    ],
)
def test_input_shapes(image, default, pretrained, expected):
    data = Data(("a", "b"), {"train": [{"image": np.zeros(image, np.uint8), "label": 0}]})
    assert input_shape(data, default, pretrained) == expected
