"""One contract for every transform of the table."""

import numpy as np
import pytest
import tensorflow as tf
from harness import assert_same, check_sound, flat, full_example

from kerasvision.augment import TRANSFORMS, apply, augment, bind, build, generator
from kerasvision.errors import RecipeError, UnknownNameError

# Nothing of theirs is random.
FIXED = {
    "grey_world",
    "local_contrast",
    "retinex",
    "standardize",
    "letterbox",
    "pad",
    "equalize",
    "autocontrast",
    "clahe",
    "grey",
    "invert",
    "posterize",
    "solarize",
    "corrupt",
}
NOT_FOR_SEGMENTATION = {"mixup"}
MIXING = [name for name, transform in TRANSFORMS.items() if getattr(transform, "mixes", False)]


def made(name, size=(48, 64)):
    return bind(build([name]), size, classes=5)[0]


def example_for(name, **options):
    example = full_example(**options)
    if name in NOT_FOR_SEGMENTATION:
        del example["segmentation"]
    return example


def run(name, example, seed):
    def source(rng):
        return example_for(name, channels=example["image"].shape[-1], seed=int(rng.integers(1, 100)))

    return apply([made(name)], example, generator(seed, 0), source)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_sound_and_seeded(name, channels):
    example = example_for(name, channels=channels)
    before = flat(dict(example.items()))
    before = {key: value.copy() for key, value in before.items()}
    results = [run(name, example, seed) for seed in range(12)]
    for result in results:
        check_sound(result)
        assert {"image", "boxes", "masks", "keypoints"} <= result.keys()
    for key, value in flat(example).items():
        np.testing.assert_array_equal(value, before[key], err_msg=f"{key} of the input was changed")
    assert_same(run(name, example, 7), results[7])
    if name not in FIXED and not (channels == 1 and not _changes(name, results, example)):
        assert len({result["image"].tobytes() for result in results}) > 1


def _changes(name, results, example):
    """Saturation, hue, casts and channels mean nothing to a grey image; everything else does change it."""
    if any(result["image"].tobytes() != example["image"].tobytes() for result in results):
        return True
    assert name in {"saturation", "hue", "color_cast", "channel_shuffle", "channel_dropout"}
    return False


@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_image_without_objects(name):
    example = example_for(name, objects=0)
    for seed in range(4):
        check_sound(run(name, example, seed))
    if name == "copy_paste":
        return  # Has nothing to do with images that have no objects.
    bare = {"image": example["image"], "label": 3}

    def source(rng):
        return bare

    result = apply([made(name)], bare, generator(1, 0), source)
    assert result["label"] == 3


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in MIXING])
def test_inside_tf_data_as_eagerly(name):
    examples = [example_for(name, seed=seed) for seed in range(4)]
    dataset = tf.data.Dataset.from_generator(
        lambda: (flat(example) for example in examples),
        output_signature={
            key: tf.TensorSpec([None] * np.ndim(value) if key != "image" else [None, None, 3], np.asarray(value).dtype)
            for key, value in flat(examples[0]).items()
        },
    )
    pipeline = augment(dataset, [made(name), "flip"], seed=3)
    salts = list(tf.data.Dataset.random(seed=3, rerandomize_each_iteration=True).take(4).as_numpy_iterator())
    for position, (result, salt) in enumerate(zip(pipeline.as_numpy_iterator(), salts, strict=True)):
        expected = apply([made(name), *build(["flip"])], examples[position], generator(salt, position))
        assert_same(result, flat(expected))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_seed_fixes_the_stream_whatever_the_parallelism(threads):
    images = np.stack([full_example(seed=seed)["image"] for seed in range(16)])
    dataset = tf.data.Dataset.from_tensor_slices({"image": images})
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    pipeline = augment(dataset, ["affine", "color", "erase", "gaussian_noise"], seed=5).with_options(options)
    found = [[each["image"].tobytes() for each in pipeline.as_numpy_iterator()] for _ in range(2)]
    salts = tf.data.Dataset.random(seed=5, rerandomize_each_iteration=True).take(16).as_numpy_iterator()
    built = build(["affine", "color", "erase", "gaussian_noise"])
    expected = [
        apply(built, {"image": image}, generator(salt, i))["image"].tobytes()
        for i, (image, salt) in enumerate(zip(images, salts, strict=True))
    ]
    assert found[0] == expected
    assert found[1] != found[0]


def test_mixing_alone_is_an_error():
    dataset = tf.data.Dataset.from_tensors({"image": np.zeros((4, 4, 3), np.uint8)})
    with pytest.raises(RecipeError, match=r"MixUp puts several examples together.*Data\.batches"):
        augment(dataset, ["mixup"])


def test_what_is_no_example():
    with pytest.raises(RecipeError, match="Expected examples"):
        augment(tf.data.Dataset.range(3), ["flip"])


def test_unknown_names_and_parameters():
    with pytest.raises(UnknownNameError, match='Unknown augmentation "flipp".*flip'):
        build(["flipp"])
    with pytest.raises(RecipeError, match='"rotate" has no parameter "degree".*degrees'):
        build([{"name": "rotate", "degree": 3}])
    with pytest.raises(RecipeError, match=r'"rotate" cannot be made from .*degrees in 0\.\.180, got 500'):
        build([{"name": "rotate", "degrees": 500}])
    with pytest.raises(RecipeError, match="put it in a list"):
        build("flip")
    with pytest.raises(RecipeError, match="Expected a transform"):
        build([3])
