"""Class maps and border weights from masks, against distances computed object by object."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from kerasvision.class_maps import ClassMaps, border_pixels, border_weights, class_maps, components, disc, label_map
from kerasvision.data import load_arrays
from kerasvision.data.dataset import Data
from kerasvision.errors import DataError, RecipeError
from kerasvision.masks import PackedMasks, encode_mask
from kerasvision.recipe import DataRecipe
from kerasvision.run_data import load_recipe_data

SQUARES = ((slice(2, 12), slice(2, 12)), (slice(2, 12), slice(13, 24)), (slice(16, 30), slice(5, 25)))


def squares(size=(32, 32)):
    """uint8 [3, H, W]: the first two are one pixel apart."""
    masks = np.zeros((3, *size), np.uint8)
    for mask, place in zip(masks, SQUARES, strict=True):
        mask[place] = 1
    return masks


def numbered(masks):
    return label_map(PackedMasks.pack(masks))


def test_smaller_masks_lie_on_top():
    masks = np.zeros((2, 6, 6), np.uint8)
    masks[0, 2:4, 2:4], masks[1, 1:5, 1:5] = 1, 1
    labels = numbered(masks)
    assert (labels == 1).sum() == 4 and (labels == 2).sum() == 12 and labels.dtype == np.int32
    assert not label_map(PackedMasks.pack(np.zeros((0, 3, 3), np.uint8))).any()


@pytest.mark.parametrize("width", [1, 1.5, 2, 3])
def test_borders_are_what_lies_near(width):
    labels = numbered(squares())
    outline, between = np.zeros(labels.shape, bool), np.zeros(labels.shape, int)
    for number in (1, 2, 3):
        own = labels == number
        outline |= own & (distance_transform_edt(own) <= width)
        between += distance_transform_edt(~own) <= width
    np.testing.assert_array_equal(border_pixels(labels, width), outline)
    np.testing.assert_array_equal(border_pixels(labels, width, outline=False), between > 1)


def test_the_edge_of_the_image_is_no_border():
    labels = np.ones((6, 6), np.int32)
    assert not border_pixels(labels, 2).any()
    assert disc(1).sum() == 5 and disc(1.5).sum() == 9


def test_border_weights():
    labels = numbered(squares())
    distances = np.sort([distance_transform_edt(labels != number) for number in (1, 2, 3)], axis=0)
    expected = 1 + 10 * np.exp(-((distances[0] + distances[1]) ** 2) / 50)
    expected[labels > 0] = 1
    received = border_weights(labels)
    assert received.dtype == np.float32 and received[6, 12] == pytest.approx(1 + 10 * np.exp(-4 / 50))
    np.testing.assert_allclose(received, expected, atol=10 * np.exp(-12.5))
    # Numbers may be missing, and distances end where weights do.
    np.testing.assert_array_equal(border_weights(labels * 5), received)
    far = border_weights(labels, w0=4.0, sigma=1.0)
    np.testing.assert_allclose(
        far, 1 + 4 * np.where(labels > 0, 0, np.exp(-((distances[0] + distances[1]) ** 2) / 2)), atol=4 * np.exp(-12.5)
    )


def test_border_weights_of_less_than_two_objects():
    assert (border_weights(np.zeros((5, 5), int)) == 1).all()
    assert (border_weights(np.eye(5, dtype=int)) == 1).all()
    assert (border_weights(np.eye(5, dtype=int), class_weights=np.full((5, 5), 3.0)) == 3).all()


def test_components():
    classes = np.array([[1, 0, 2, 2], [0, 1, 0, 255], [1, 1, 2, 2]], np.uint8)
    np.testing.assert_array_equal(components(classes), [[1, 0, 2, 2], [0, 1, 0, 0], [1, 1, 3, 3]])
    assert components(classes, connectivity=4).max() == 4
    assert components(classes, background=1).max() == 3


def example(masks, classes, crowd):
    return {"masks": PackedMasks.pack(masks), "classes": np.array(classes), "crowd": np.array(crowd, bool)}


def test_class_maps():
    maps = ClassMaps(width=1, weights=True, class_weights=(0.5, 2.0))
    arrays = maps(example(squares(), [1, 2, 1], [0, 0, 1]), 4)
    classes, instances = arrays["segmentation"], arrays["instances"]
    assert (classes[SQUARES[2]] == 255).all() and not instances[SQUARES[2]].any()
    assert (classes[3:11, 3:11] == 1).all() and (classes[3:11, 14:23] == 2).all() and (classes[2, 2:12] == 3).all()
    assert (instances[SQUARES[0]] == 1).all() and (instances[SQUARES[1]] == 2).all()
    np.testing.assert_allclose(arrays["pixel_weights"][[5, 0, 2], [5, 31, 2]], [2, 0.5, 1], atol=1e-3)
    spec = maps.spec((32, 32))
    assert {name: (values.dtype, values.shape) for name, values in arrays.items()} == {
        name: (np.dtype(kind), shape) for name, (kind, shape) in spec.items()
    }
    plain = ClassMaps(border=False)(example(squares(), [1, 2, 1], [0, 0, 0]), 3)
    assert set(plain) == {"segmentation", "instances"} and set(np.unique(plain["segmentation"])) == {0, 1, 2}


def test_class_maps_without_objects_and_bad_settings():
    arrays = ClassMaps(weights=True)(example(np.zeros((0, 8, 8), np.uint8), np.zeros(0, int), []), 3)
    assert not arrays["segmentation"].any() and not arrays["instances"].any() and (arrays["pixel_weights"] == 1).all()
    with pytest.raises(ValueError, match="width of 1 pixel"):
        ClassMaps(width=0)


def instances_data():
    masks = squares()
    boxes = np.array([[2, 2, 12, 12], [13, 2, 24, 12], [5, 16, 25, 30]], np.float32)
    one = {
        "image": (masks.max(axis=0)[..., None] * 200).repeat(3, axis=-1),
        "boxes": boxes,
        "classes": np.zeros(3, np.int32),
        "crowd": np.zeros(3, bool),
        "masks": [encode_mask(mask) for mask in masks],
        "key": "one",
    }
    return Data(("cell",), {"train": [one], "validation": [one]}, source="cells")


def test_data_with_class_maps():
    data = instances_data().with_class_maps(ClassMaps(width=1, weights=True))
    assert data.labels == ("background", "cell", "border")
    images, targets = next(iter(data.batches("validation", image_size=(32, 32), batch_size=1)))
    assert set(targets) == {"segmentation", "instances", "pixel_weights"}
    assert images.shape == (1, 32, 32, 3) and targets["segmentation"].dtype == "uint8"
    expected = ClassMaps(width=1)(example(squares(), [1, 1, 1], [0, 0, 0]), 3)
    np.testing.assert_array_equal(targets["segmentation"][0], expected["segmentation"])
    np.testing.assert_array_equal(targets["instances"][0], expected["instances"])
    # A border keeps its width whatever the image is scaled by.
    _, large = next(iter(data.batches("validation", image_size=(64, 64), batch_size=1)))
    assert (large["segmentation"][0, 4:24, 12] == 2).numpy().sum() == 2
    _, turned = next(
        iter(data.batches("train", image_size=(32, 32), batch_size=1, augment=[{"name": "flip", "probability": 1.0}]))
    )
    np.testing.assert_array_equal(turned["segmentation"][0], expected["segmentation"][:, ::-1])


def test_data_of_class_maps_gets_borders_and_weights():
    classes = (numbered(squares()) > 0).astype(np.uint8)
    classes[31] = 255
    one = {"image": np.zeros((32, 32, 3), np.uint8), "segmentation": classes, "key": "one"}
    data = Data(("none", "cell"), {"train": [one]}).with_class_maps(ClassMaps(width=1, outline=False))
    assert data.labels == ("none", "cell", "border")
    _, targets = next(iter(data.batches("train", image_size=(32, 32), batch_size=1)))
    found = targets["segmentation"][0].numpy()
    assert (found[2:12, 12] == 2).all() and (found[31] == 255).all() and targets["instances"].numpy().max() == 3


def test_data_that_has_no_masks():
    digits = load_arrays(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1])
    with pytest.raises(DataError, match="no masks, only"):
        digits.with_class_maps()
    with pytest.raises(DataError, match="class maps already"):
        instances_data().with_class_maps().with_class_maps()


def test_recipes_ask_for_class_maps():
    maps = class_maps({"width": 1, "weights": True, "class_weights": [1, 2]})
    assert maps == ClassMaps(width=1, weights=True, class_weights=[1, 2]) and maps.border
    with pytest.raises(DataError, match="no masks, only"):
        load_recipe_data(DataRecipe("digits", class_maps={}))
    for wrong, words in (
        ({"widht": 1}, '"widht".*width'),
        ({"width": 0}, "width of 1 pixel"),
        ({"width": "a"}, "maps"),
    ):
        with pytest.raises(RecipeError, match=words):
            load_recipe_data(DataRecipe("digits", class_maps=wrong))
