"""Masks that cannot be used, and images of odd sides: an error that names the file, or the right answer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from segmentation import contract

import kerasvision as kv
from kerasvision.data import load_data
from kerasvision.data.arrays import load_arrays
from kerasvision.data.loading import Loader
from kerasvision.errors import DataError

# No stride divides it.
SIZE = (45, 67)
PALETTE = np.uint8([[90, 90, 90], [230, 40, 40], [40, 60, 230]])
LISTED = "name,r,g,b\n" + "".join(
    f"{name},{','.join(map(str, colour))}\n" for name, colour in zip(contract.LABELS, PALETTE, strict=True)
)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_set(root, count=4):
    """Folders of images and of masks that hold class indices, and the classes' names."""
    images, targets = contract.scene(SIZE, count)
    for index, (image, classes) in enumerate(zip(images, targets["segmentation"], strict=True)):
        write(root / f"images/scene{index}.png", image.astype(np.uint8))
        write(root / f"masks/scene{index}.png", classes)
    (root / "labels.txt").write_text("\n".join(contract.LABELS))
    return targets["segmentation"]


def spoil(root, kind, classes):
    """One mask that cannot be used, and what must be said of it."""
    mask = root / "masks/scene2.png"
    if kind == "another size":
        write(mask, classes[2][1:])
        return r"scene2\.png: the mask has 67 x 44 pixels, its image 67 x 45"
    if kind == "a class above the number of classes":
        write(mask, np.where(classes[2] == 1, 3, classes[2]).astype(np.uint8))
        return r"scene2\.png: the mask holds 3; expected 0\.\.2, or 255"
    if kind == "void everywhere":
        write(mask, np.full(SIZE, 255, np.uint8))
        return r"scene2\.png: every pixel of the mask is void"
    if kind == "no mask":
        mask.unlink()
        return r"scene2\.png: has no mask .*masks/scene2\.png"
    assert kind == "a colour outside of the palette"
    (root / "class_dict.csv").write_text(LISTED)
    for index, each in enumerate(classes):
        write(root / f"masks/scene{index}.png", PALETTE[np.where(each == 255, 0, each)])
    colours = PALETTE[np.where(classes[2] == 255, 0, classes[2])]
    colours[7, 11] = 1, 2, 3
    write(mask, colours)
    return r"scene2\.png: 1 pixels have colours .* the first \(1, 2, 3\) in row 7, column 11"


@pytest.mark.parametrize(
    "kind",
    [
        "another size",
        "a class above the number of classes",
        "a colour outside of the palette",
        "void everywhere",
        "no mask",
    ],
)
def test_masks_that_cannot_be_used_are_named(kind, tmp_path):
    said = spoil(tmp_path, kind, write_set(tmp_path))
    with pytest.raises(DataError, match=said):
        load_data(tmp_path, validation_fraction=0)
    data = load_data(tmp_path, validation_fraction=0, on_bad_files="skip")
    assert data.labels == tuple(contract.LABELS)
    assert [example["image"][-10:-4] for example in data.splits["train"]] == ["scene0", "scene1", "scene3"]
    assert len(data.skipped) == 1


def test_arrays_that_cannot_be_used_are_named():
    images, targets = contract.scene(SIZE, 3)
    images, classes = images.astype(np.uint8), targets["segmentation"]
    for index, (value, said) in enumerate(
        [(3, "segmentation of image 0 holds 3; there are names of 3 classes"), (300, "image 1 holds 300; expected")]
    ):
        wrong = classes.astype(int)
        wrong[index, 5, 5] = value
        with pytest.raises(DataError, match=said):
            load_arrays(images, segmentation=wrong, names=contract.LABELS)
    with pytest.raises(DataError, match=r"segmentation of image 2 is \[44, 67\]"):
        load_arrays(images, segmentation=[*classes[:2], classes[2][1:]], names=contract.LABELS)


def test_a_mask_that_has_changed_is_named(tmp_path):
    """Or one that nobody has checked."""
    classes = write_set(tmp_path)
    data = load_data(tmp_path, validation_fraction=0)
    write(tmp_path / "masks/scene1.png", classes[1][:, 1:])
    loader = Loader(data.splits["train"], data.infos, 3, 3)
    with pytest.raises(DataError, match=r"scene1\.png: the mask has 66 x 45 pixels, its image 67 x 45"):
        loader(1)
    with pytest.raises(tf.errors.OpError, match=r"scene1\.png: the mask has 66 x 45 pixels"):
        list(data.batches("train", image_size=SIZE))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return contract.create("lraspp", SIZE)


def test_odd_sides_from_files_to_figures(model, tmp_path):
    """Images of other sizes than the net's, none of which a stride divides."""
    write_set(tmp_path)
    images, targets = contract.scene((31, 53), 2, seed=1)
    for index in range(2):
        write(tmp_path / f"images/other{index}.png", images[index].astype(np.uint8))
        write(tmp_path / f"masks/other{index}.png", targets["segmentation"][index])
    data = load_data(tmp_path, validation_fraction=0)
    model.compile("adam")
    batches = data.batches("train", image_size=SIZE, batch_size=4)
    history = model.fit(batches, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    predictor = kv.load(tmp_path / "model.keras")
    figures = predictor.evaluate(data, "train")
    assert 0 <= figures["mIoU"] <= 1
    found = predictor.predict([example["image"] for example in data.splits["train"]])
    assert [classes.shape for classes in found.maps] == [(31, 53)] * 2 + [SIZE] * 4
    assert all((classes < 3).all() for classes in found.maps)


def test_void_counts_nowhere(model):
    """A batch with an image of nothing else: half the loss, the gradients finite, the figures those of the rest."""
    images, targets = contract.scene(SIZE, 2)
    one = {"segmentation": targets["segmentation"][:1]}
    both = {"segmentation": targets["segmentation"].copy()}
    both["segmentation"][1] = 255
    with tf.GradientTape() as tape:
        outputs = model(images, training=False)
        losses = model.task.loss(both, outputs)
        total = sum(losses.values())
    gradients = tape.gradient(total, [weight.value for weight in model.trainable_weights])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    first = model.task.loss(one, {name: values[:1] for name, values in outputs.items()})
    np.testing.assert_allclose(losses["crossentropy"], first["crossentropy"] / 2, rtol=1e-5)
    found = {"classes": np.asarray(model.task.decode(outputs)["classes"])}
    figures = model.task.metrics(both, found)
    assert figures == model.task.metrics(one, {"classes": found["classes"][:1]})
    nothing = {"segmentation": np.full((2, *SIZE), 255, np.uint8)}
    assert model.task.metrics(nothing, found) == {}
    shown = {**model.task.loss(nothing, outputs), **model.task.monitors(nothing, outputs)}
    assert {name: float(value) for name, value in shown.items()} == dict.fromkeys(shown, 0.0)


def test_classes_that_nobody_has_checked(model):
    """Of batches that do not come from `load_data`."""
    images, targets = contract.scene(SIZE, 2)
    wrong = {"segmentation": np.where(targets["segmentation"] == 2, 7, targets["segmentation"])}
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)label value of 7 .*\[0, 3\)|7.*out of range"):
        model.fit(images, wrong, verbose=0)
    with pytest.raises(ValueError, match=r"The truth has the class 7; expected 0\.\.2, or 255"):
        model.task.metrics(wrong, {"classes": np.zeros((2, *SIZE), int)})
