"""One Predictor for every artifact: the same pixels, the same numbers, and clear errors for what is no artifact."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kerasvision as kv
from kerasvision.data import load_data
from kerasvision.errors import ArtifactError, DataError
from kerasvision.predictions import Predictions
from kerasvision.runtime import Predictor, evaluate, load

LABELS = ("bright", "dark", "middling")
NAMES = ("run", "model.keras", "model_float32.tflite", "model_saved_model", "model.onnx", "model_int8_ptq.tflite")
FLOAT_NAMES = NAMES[:-1]
LEVEL = {"bright": 220, "dark": 30, "middling": 120}


def picture(label: str, seed: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(LEVEL[label], 45, (*size, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def trained(labels: tuple[str, ...] = LABELS, epochs: int = 3, **arguments) -> kv.TaskModel:
    keras.utils.set_random_seed(1)
    model = kv.create_model("small_cnn", labels=labels, input_shape=(12, 10, 3), filters=(4, 8), depth=1, **arguments)
    images = np.stack([picture(label, seed, (12, 10)) for label in LABELS for seed in range(20)]).astype(np.float32)
    label = np.repeat([labels.index(label) for label in LABELS], 20)
    targets = {"labels": np.eye(3, dtype=np.float32)[label]} if arguments.get("multi_label") else {"label": label}
    model.compile("adam")
    if epochs:
        model.fit(images, targets, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    model = trained()
    model.save(folder / "model.keras")
    (folder / "run").mkdir()
    shutil.copy(folder / "model.keras", folder / "run" / "model.keras")
    images = np.stack([picture(label, seed, (12, 10)) for label in LABELS for seed in range(8)])
    data = [(images, {"label": np.repeat([0, 1, 2], 8)})]
    for format, quantization in (("tflite", "none"), ("saved_model", "none"), ("onnx", "none"), ("tflite", "int8")):
        kv.export(model, folder, format=format, quantization=quantization, data=data, samples=8, benchmark=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with a test split; sizes differ from the model's and from each other."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("test", 9)):
        for label in LABELS:
            target = root / split / label
            target.mkdir(parents=True)
            for index in range(count):
                size = (20 + 7 * index, 50 - 3 * index)
                Image.fromarray(picture(label, 100 + index, size)).save(target / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def predictors(artifacts) -> dict[str, Predictor]:
    return {name: load(artifacts / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_artifact_brings_task_preprocessing_and_labels(predictors, name):
    predictor = predictors[name]
    assert predictor.labels == LABELS
    assert predictor.image_size == (12, 10) and predictor.channels == 3
    assert predictor.name == "small_cnn"
    assert predictor.preprocessing == predictors["run"].preprocessing
    assert predictor.task.get_config() == predictors["run"].task.get_config()
    assert name in repr(predictor)


def test_formats(predictors):
    assert [predictors[name].format for name in NAMES] == ["run", "keras", "tflite", "saved_model", "onnx", "tflite"]


def test_float_artifacts_agree_and_int8_is_close(predictors):
    images = np.stack([picture(label, seed, (12, 10)) for label in LABELS for seed in range(50, 62)])
    reference = predictors["run"].run(images)["scores"]
    assert reference.shape == (36, 3)
    np.testing.assert_allclose(reference.sum(axis=1), 1, atol=1e-5)
    for name in FLOAT_NAMES:
        np.testing.assert_allclose(predictors[name].run(images)["scores"], reference, atol=1e-5)
        np.testing.assert_array_equal(
            predictors[name].run(images)["scores"], predictors[name].run(images.astype(np.float32))["scores"]
        )
    difference = np.abs(predictors["model_int8_ptq.tflite"].run(images)["scores"] - reference)
    assert difference.mean() < 0.02


def test_the_same_metric_to_the_digit_for_every_float_artifact(predictors, folder):
    metrics = {name: predictors[name].evaluate(folder) for name in FLOAT_NAMES}
    assert 0.34 < metrics["run"]["accuracy"] <= 1
    for name in FLOAT_NAMES:
        assert metrics[name] == metrics["run"]


def test_evaluate_takes_a_path_data_or_batches(artifacts, predictors, folder):
    data = load_data(folder)
    expected = predictors["run"].evaluate(data)
    assert evaluate(artifacts / "run", folder) == expected
    assert evaluate(predictors["run"], data, split="test") == expected
    batches = data.batches("test", image_size=(12, 10), preprocessing=predictors["run"].preprocessing, batch_size=5)
    assert evaluate(artifacts / "model.keras", batches) == expected
    plain = [(images.numpy(), targets["label"].numpy()) for images, targets in batches]
    assert evaluate(artifacts / "model.keras", plain) == expected


def test_all_splits_together(predictors, folder):
    targets, predictions = predictors["run"].collect(folder, split="all")
    assert len(targets["label"]) == len(predictions["scores"]) == 3 * 13


def test_labels_in_another_order_are_aligned_by_name(tmp_path, predictors, folder):
    other = trained(LABELS[::-1], epochs=0)
    other.save(tmp_path / "other.keras")
    targets, _ = predictors["run"].collect(folder)
    reversed_targets, _ = load(tmp_path / "other.keras").collect(folder)
    np.testing.assert_array_equal(reversed_targets["label"], 2 - targets["label"])


def test_some_of_the_models_labels_are_enough(tmp_path, predictors, folder):
    for label in ("dark", "middling"):
        shutil.copytree(folder / "test" / label, tmp_path / "test" / label)
    targets, predictions = predictors["run"].collect(tmp_path)
    assert set(targets["label"]) == {1, 2} and predictions["scores"].shape == (18, 3)


def test_unknown_labels_are_an_error(tmp_path, predictors, folder):
    shutil.copytree(folder / "test" / "dark", tmp_path / "test" / "dark")
    shutil.copytree(folder / "test" / "bright", tmp_path / "test" / "shiny")
    with pytest.raises(DataError, match=r'does not know the labels "shiny".*"bright", "dark", "middling"'):
        predictors["run"].evaluate(tmp_path)


def test_data_without_splits_is_judged_whole(tmp_path, predictors, folder):
    shutil.copytree(folder / "test", tmp_path / "plain")
    assert predictors["run"].evaluate(tmp_path / "plain") == predictors["run"].evaluate(folder)


def test_numbered_labels_are_matched_by_position(tmp_path, artifacts, predictors, folder):
    numbered = trained(labels=LABELS, epochs=0)
    numbered.load_weights(artifacts / "model.keras")
    config = numbered.get_config()
    unnamed = kv.create_model(config["name"], **{**config["arguments"], "labels": ["0", "1", "2"]})
    unnamed.set_weights(numbered.get_weights())
    unnamed.save(tmp_path / "unnamed.keras")
    assert evaluate(tmp_path / "unnamed.keras", folder) == predictors["run"].evaluate(folder)


def test_a_missing_split_names_those_that_exist(predictors, folder):
    with pytest.raises(DataError, match=r'split "validaton".*train \(12 images\), test \(27 images\).*"all"'):
        predictors["run"].evaluate(folder, split="validaton")


def test_empty_data(predictors):
    with pytest.raises(DataError, match="empty"):
        predictors["run"].evaluate([])


def test_batches_of_another_size_are_refused(predictors):
    with pytest.raises(ValueError, match=r"12, 10, 3"):
        predictors["run"].evaluate([(np.zeros((2, 8, 8, 3)), np.zeros(2, int))])


def test_many_labels(tmp_path, folder):
    trained(epochs=0, multi_label=True).save(tmp_path / "many.keras")
    predictor = load(tmp_path / "many.keras")
    targets, predictions = predictor.collect(folder)
    assert targets["labels"].shape == predictions["scores"].shape == (27, 3)
    assert "mAP" in predictor.evaluate(folder)
    assert predictor.predict(np.zeros((12, 10, 3), np.uint8)).multi_label
    with pytest.raises(DataError, match="multi_label=True"):
        predictor.evaluate(load_data(folder))


def test_the_run_s_own_split_is_used_for_its_own_data(tmp_path, artifacts, image_folder):
    root = image_folder({"bright": 10, "dark": 10, "middling": 10})
    shutil.copytree(artifacts / "run", tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(
        f"data: {{source: {json.dumps(str(root))}, test_fraction: 0.3, split_seed: 5}}\nmodel: {{name: small_cnn}}\n"
    )
    predictor = load(tmp_path / "run")
    expected = load_data(root, test_fraction=0.3, seed=5).splits
    assert predictor.load_data().splits == predictor.load_data(root).splits == expected
    exported = tmp_path / "run" / "exports"
    exported.mkdir()
    shutil.copy(artifacts / "model_float32.tflite", exported)
    assert load(exported / "model_float32.tflite").load_data().splits == expected
    assert evaluate(tmp_path / "run", root) == evaluate(exported / "model_float32.tflite", root)


def test_without_a_run_the_data_must_be_named(predictors):
    with pytest.raises(DataError, match="name the data"):
        predictors["model.keras"].load_data()


def test_predict_takes_files_folders_arrays_and_lists_of_any_size(predictors, folder):
    predictor = predictors["model_float32.tflite"]
    file = folder / "test" / "dark" / "3.png"
    pixels = np.asarray(Image.open(file))
    one = predictor.predict(file)
    assert one.images == (str(file),) and len(one) == 1
    for images in (str(file), [file], pixels, pixels[None], [pixels], Image.open(file), pixels.astype(np.float32)):
        np.testing.assert_array_equal(predictor.predict(images).scores, one.scores)
    assert len(predictor.predict([file, pixels, folder / "test" / "bright"])) == 11
    assert len(predictor.predict(folder)) == 39
    grey = predictor.predict(pixels[..., 0])
    assert grey.scores.shape == (1, 3)


def test_predict_sees_the_pixels_that_evaluate_sees(predictors, folder):
    predictor = predictors["run"]
    _, collected = predictor.collect(folder)
    files = [example["image"] for example in load_data(folder).splits["test"]]
    np.testing.assert_allclose(predictor.predict(files).scores, collected["scores"], atol=1e-6)


def test_bad_images_are_all_named_and_can_be_left_out(tmp_path, predictors, folder):
    good = folder / "test" / "dark" / "0.png"
    truncated, text, missing = tmp_path / "truncated.png", tmp_path / "text.png", tmp_path / "missing.png"
    truncated.write_bytes(good.read_bytes()[:200])
    text.write_text("hello")
    images = [good, truncated, text, missing, good]
    with pytest.raises(DataError) as caught:
        predictors["run"].predict(images)
    assert "3 of 5 images" in str(caught.value)
    assert all(file.name in str(caught.value) for file in (truncated, text, missing))
    with pytest.warns(UserWarning, match=r"(?s)3 of 5 images.*truncated\.png.*text\.png"):
        kept = predictors["run"].predict(images, on_bad_files="skip")
    assert kept.images == (str(good), str(good))
    with pytest.raises(DataError, match="None of the images|cannot be used"):
        predictors["run"].predict([text, missing], on_bad_files="skip")


def test_a_bad_array_is_named_by_its_place(predictors):
    with pytest.raises(DataError, match=r"Image 1: .*0\.\.255"):
        predictors["run"].predict([np.zeros((4, 4, 3)), np.full((4, 4, 3), 300.0)])


@pytest.mark.parametrize("images", [[], 7, {"a": 1}])
def test_what_is_no_image(predictors, images):
    with pytest.raises(DataError, match="image"):
        predictors["run"].predict(images)


def test_a_folder_without_images(tmp_path, predictors):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no image in"):
        predictors["run"].predict(tmp_path)


def broken(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.tflite", "does not exist"),
        ("text.tflite", "not a TFLite file"),
        ("cut.tflite", "truncated|cannot be run|damaged"),
        ("empty.keras", "an empty file"),
        ("cut.keras", "cannot be loaded"),
        ("text.onnx", "ONNX"),
        ("model.h5", "Expected a .tflite, .onnx or .keras file"),
        ("folder", "neither a run .* nor a SavedModel"),
        ("saved", "damaged SavedModel"),
    ],
)
def test_what_is_no_artifact_is_named_with_a_remedy(tmp_path, artifacts, name, message):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "saved":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"nonsense")
    elif name.startswith("cut"):
        whole = artifacts / {"cut.tflite": "model_float32.tflite", "cut.keras": "model.keras"}[name]
        broken(path, whole.read_bytes()[: whole.stat().st_size // 2])
    elif name != "missing.tflite":
        broken(path, b"" if name.startswith("empty") else b"hello, I am no model")
    with pytest.raises(ArtifactError, match=message) as caught:
        load(path)
    assert name in str(caught.value)


def test_a_missing_artifact_names_its_neighbours(artifacts):
    with pytest.raises(ArtifactError, match=r'there are: "model\.keras", "model\.onnx"'):
        load(artifacts / "modell.keras")


def test_code_in_a_keras_file_is_refused(tmp_path):
    ran = str(tmp_path / "ran")
    image = keras.Input((4, 4, 3))
    evil = keras.layers.Lambda(lambda x: (x, open(ran, "w"))[0])(image)  # noqa: PTH123, SIM115
    keras.Model(image, evil).save(tmp_path / "evil.keras")
    Path(ran).unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match=r"evil\.keras holds Python code"):
        load(tmp_path / "evil.keras")
    assert not Path(ran).exists()


def test_classes_from_elsewhere_are_refused(tmp_path, artifacts):
    path = tmp_path / "foreign.keras"
    with zipfile.ZipFile(artifacts / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content) | {"module": "os", "class_name": "system", "registered_name": "system"}
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.raises(ArtifactError, match=r"foreign\.keras.*system"):
        load(path)


def test_a_plain_keras_model_is_no_artifact(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "plain.keras")
    with pytest.raises(ArtifactError, match=r"plain\.keras holds a Sequential, not a model of kerasvision"):
        load(tmp_path / "plain.keras")


def test_a_file_of_somebody_else_is_refused(tmp_path, artifacts):
    shutil.copytree(artifacts / "model_saved_model", tmp_path / "foreign")
    shutil.rmtree(tmp_path / "foreign" / "assets.extra")
    with pytest.raises(ArtifactError, match="was not written by kerasvision"):
        load(tmp_path / "foreign")


@pytest.mark.parametrize("changes", [{"task": {"name": "juggling"}}, {"image_size": 3}, {"preprocessing": {"x": 1}}])
def test_a_description_this_version_cannot_read(tmp_path, artifacts, changes):
    shutil.copytree(artifacts / "model_saved_model", tmp_path / "new")
    facts = tmp_path / "new" / "assets.extra" / "kerasvision.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | changes | {"kerasvision": "9.9"}))
    with pytest.raises(ArtifactError, match=r"kerasvision 9\.9"):
        load(tmp_path / "new")


def predictions(**changes) -> Predictions:
    images = (np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8))
    arguments = {"images": images, "scores": [[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]], "labels": LABELS, "shown": 2}
    return Predictions(**(arguments | changes))


def test_predictions_rank_and_serialize():
    found = predictions()
    assert found.top()[0] == [("dark", pytest.approx(0.7)), ("middling", pytest.approx(0.2))]
    assert [label for label, _ in found.top(3)[1]] == ["bright", "dark", "middling"]  # ties keep the labels' order
    as_dict = json.loads(json.dumps(found.to_dict()))
    assert as_dict["predictions"][1] == {
        "image": 1,
        "top": [{"label": "bright", "score": 0.4}, {"label": "dark", "score": 0.4}],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [[0.1, 0.9]]}, r"\[2, 3\], got \[1, 2\]"),
        ({"scores": [[0.1, 0.7, 0.2], [np.nan, 0, 0]]}, "finite"),
        ({"scores": [[0.1, 0.7, 0.2], [5.0, 0, 0]]}, r"0\.\.1"),
        ({"shown": 0}, "at least 1"),
    ],
)
def test_predictions_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        predictions(**changes)


def test_predictions_cannot_be_changed():
    found = predictions()
    with pytest.raises(AttributeError):
        found.labels = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        found.scores[0] = 0


def test_drawn_predictions_are_saved_under_names_of_their_own(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        Image.fromarray(picture("dark", 0)).save(tmp_path / place / "x.png")
    images = (str(tmp_path / "a" / "x.png"), str(tmp_path / "b" / "x.png"))
    files = predictions(images=images).save(tmp_path / "out")
    names = ["x_prediction.png", "x_2_prediction.png", "predictions.json"]
    assert [file.name for file in files] == names
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(names)
    assert Image.open(files[0]).size[0] >= 320
    saved = json.loads(files[-1].read_text())["predictions"]
    assert [entry["drawn"] for entry in saved] == names[:2]
    assert saved[0]["image"] == images[0]


def test_nothing_half_written_when_drawing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        predictions().save(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
