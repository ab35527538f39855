"""Volumes segmented slice by slice: where each class lies, how much of it there is, and the command line."""

import json
import warnings

import keras
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from medical import make
from PIL import Image

import kerasvision as kv
from kerasvision.class_maps import VOID
from kerasvision.cli import main
from kerasvision.errors import DataError
from kerasvision.medical import SegmentedVolume, Window, read_volume, segment
from kerasvision.tiles import with_tiles

# Below -40 dark, above 200 bright.
WINDOW = Window(40, 400)
STEP = np.array([[-0.7, 0.1, 0, 12], [0, -0.9, 0.2, -7], [0.1, 0, 3, 55], [0, 0, 0, 1]])


def truth(values):
    """Classes of Hounsfield units under `WINDOW`."""
    return np.digitize(WINDOW(values), [100, 200])


@pytest.mark.parametrize("tiles", [False, True])
def test_a_nifti_file_gets_classes_in_its_own_geometry(tmp_path, tiles):
    # The file's axes are (x, y, z) of no particular direction, and of another size than the net's input.
    values = make.body((6, 50, 70)).transpose(2, 1, 0)[:, ::-1]
    path = make.write_nifti(tmp_path / "scan.nii.gz", values, STEP)
    model = with_tiles(make.predictor(), 0.25) if tiles else make.predictor(size=(50, 70))
    found = segment(model, read_volume(path), WINDOW)
    written = nibabel.load(found.write(tmp_path / "out" / "scan_classes.nii.gz"))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), truth(values))
    np.testing.assert_array_equal(written.affine, nibabel.load(path).affine)
    assert written.get_data_dtype() == np.uint8 and (truth(values) == 2).any()
    counts = np.bincount(truth(values).ravel())
    assert found.voxels() == dict(zip(make.ByBrightness.labels, counts.tolist(), strict=True))
    size = abs(np.linalg.det(STEP[:3, :3])) / 1000
    assert found.millilitres()["bone"] == pytest.approx(counts[2] * size)
    facts = found.to_dict()
    assert facts["classes"]["soft"] == {"voxels": int(counts[1]), "ml": pytest.approx(counts[1] * size, abs=1e-5)}
    assert facts["size"] == [6, 50, 70] and facts["window"] == {"center": 40, "width": 400, "function": "linear"}


def test_a_series_gets_classes_where_its_slices_lie(tmp_path):
    values = make.body((5, 32, 40))
    folder = make.write_series(tmp_path / "ct", values, step=(0, 0, -2.5), first=(-10, -20, 30))
    found = segment(make.predictor(), read_volume(folder))
    assert found.window == WINDOW  # That of the files.
    written = nibabel.load(found.write(tmp_path / "classes.nii"))
    assert written.shape == (40, 32, 5) and written.header["sform_code"] == 1
    classes = np.asanyarray(written.dataobj)
    for index, row, column in np.argwhere(truth(values) == 2)[::7]:
        place = np.array([-10 + column * 0.5, -20 + row * 0.8, 30 - index * 2.5])
        own = np.linalg.solve(written.affine, [*(place * [-1, -1, 1]), 1])[:3]
        assert classes[tuple(np.rint(own).astype(int))] == 2
    assert (classes == 2).sum() == (truth(values) == 2).sum()
    assert found.millilitres()["bone"] == pytest.approx((classes == 2).sum() * 0.8 * 0.5 * 2.5 / 1000)
    # The written map is a volume like any other, in the same place.
    again = read_volume(tmp_path / "classes.nii")
    np.testing.assert_allclose(again.affine, read_volume(folder).affine, atol=1e-5)
    np.testing.assert_array_equal(again.values, found.classes)


def test_pages_and_pictures(tmp_path):
    values = (make.body((4, 32, 40)) + 1024).astype(np.uint16)
    first, *rest = (Image.fromarray(page) for page in values)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    found = segment(make.predictor(), read_volume(tmp_path / "stack.tif"), Window(1064, 400))
    np.testing.assert_array_equal(found.classes, truth(values.astype(int) - 1024))
    assert found.to_dict()["spacing_mm"] is None and "ml" not in found.to_dict()["classes"]["bone"]
    with pytest.raises(DataError, match="does not say how far apart"):
        found.millilitres()
    written = nibabel.load(found.write(tmp_path / "classes.nii"))
    np.testing.assert_array_equal(written.affine, np.eye(4))
    assert written.header.get_xyzt_units()[0] == "unknown"
    assert found.draw().width >= 40
    drawn = [np.asarray(found.draw(index)).tobytes() for index in range(4)]
    foreground = (found.classes > 0).sum(axis=(1, 2))
    assert np.asarray(found.draw()).tobytes() == drawn[int(foreground.argmax())]


def test_voxels_that_the_model_says_nothing_about(tmp_path):
    path = make.write_nifti(tmp_path / "scan.nii", make.body((3, 32, 40)), np.eye(4))
    volume = read_volume(path, plane="sagittal")
    found = segment(make.predictor(size=volume.values.shape[1:], margin=2), volume, WINDOW)
    assert (found.classes[:, 0] == VOID).all() and sum(found.voxels().values()) < found.classes.size
    assert isinstance(found, SegmentedVolume) and found.draw()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A tiny segmenter with fresh weights, a volume and a series."""
    folder = tmp_path_factory.mktemp("volumes")
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "unet",
        labels=["background", "soft", "bone"],
        input_shape=(32, 48, 1),
        backbone="small_cnn",
        backbone_arguments={"filters": [8, 8, 8], "depth": 1},
        levels=["P1", "P2"],
        filters=[8],
    )
    values = make.body((4, 40, 60))
    images = WINDOW(values)[..., None]
    # Constants under which every class occurs.
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    kernel, bias = last.get_weights()
    logits = model.predict(images[:, :32, :48].astype(np.float32), verbose=0)["logits"].reshape(-1, 3)
    last.set_weights([kernel, bias - np.median(logits, axis=0)])
    model.save(folder / "model.keras")
    make.write_nifti(folder / "scan.nii.gz", values.transpose(2, 1, 0), STEP)
    make.write_series(folder / "ct", values)
    return folder


def call(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_predict_verb(workspace, tmp_path):
    model, scan, series = workspace / "model.keras", workspace / "scan.nii.gz", workspace / "ct"
    result = call("predict", model, scan, series, "--window", 40, 400, "--tiles", "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    names = ["scan_classes.nii.gz", "scan_prediction.png", "ct_classes.nii.gz", "ct_prediction.png", "predictions.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    assert values["files"] == [str(tmp_path / name) for name in names]
    saved = json.loads((tmp_path / "predictions.json").read_text())
    assert saved == {key: values[key] for key in ("artifact", "labels", "predictions")}
    assert [entry["classes_file"] for entry in saved["predictions"]] == [names[0], names[2]]
    assert saved["predictions"][0]["window"]["from"] == "given"
    tiled = kv.with_tiles(model)
    for source, name in ((scan, names[0]), (series, names[2])):
        volume = read_volume(source)
        expected = segment(tiled, volume, WINDOW)
        again = read_volume(tmp_path / name)
        np.testing.assert_array_equal(again.values, expected.classes)
        np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)
        assert len(np.unique(expected.classes)) > 1
    written, own = nibabel.load(tmp_path / names[0]), nibabel.load(scan)
    assert written.shape == own.shape == (60, 40, 4)
    np.testing.assert_array_equal(written.affine, own.affine)
    shown = call("predict", model, workspace / "ct", "--out", tmp_path)
    assert "40 / 400 (file)" in shown.stdout and " ml" in shown.stdout, shown.stderr
    assert "(percentiles)" in call("predict", model, scan, "--plane", "coronal").stdout


def test_what_the_predict_verb_refuses(workspace, tmp_path):
    model, scan = workspace / "model.keras", workspace / "scan.nii.gz"
    Image.new("L", (40, 32)).save(tmp_path / "a.png")
    for arguments, expected in (
        ((scan, tmp_path / "a.png"), "a.png holds no volume"),
        ((tmp_path / "a.png", "--window", 40, 400), "--window is for volumes"),
        ((tmp_path / "a.png", "--plane", "axial"), "--plane is for volumes"),
        ((scan, "--window", 40, 0), "--window: A window has a center and a width"),
    ):
        refused = call("predict", model, *arguments)
        assert refused.exit_code == 2 and expected in refused.stderr.replace("\n", " ")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "bad.nii.gz").write_bytes(scan.read_bytes()[:500])
    stopped = call("predict", model, tmp_path / "set")
    assert stopped.exit_code == 1 and "bad.nii.gz cannot be read as NIfTI" in stopped.stderr
    (tmp_path / "set" / "good.nii.gz").write_bytes(scan.read_bytes())
    left = json.loads(call("predict", model, tmp_path / "set", "--skip-bad-files", "--json").stdout)
    assert [entry["volume"] for entry in left["predictions"]] == [str(tmp_path / "set" / "good.nii.gz")]
    classifier = kv.create_model("small_cnn", labels=["a", "b"], input_shape=(8, 8, 1))
    classifier.save(tmp_path / "classifier.keras")
    refused = call("predict", tmp_path / "classifier.keras", scan)
    assert refused.exit_code == 2 and "which is for segmenters" in refused.stderr
    with pytest.raises(DataError, match=r"is a classifier. Expected a segmenter"):
        segment(tmp_path / "classifier.keras", read_volume(scan))
