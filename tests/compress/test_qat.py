import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.compress.quantizers import observed
from kerasvision.errors import QuantizationError
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import register


@register("test_shared_convolution", input_shape=(16, 16, 1), preprocessing=Preprocessing())
def shared_convolution(x, *, weights=None):
    shared = keras.layers.Conv2D(1, 1, name="shared")
    parts = []
    for sign in (1, -1):
        y = shared(keras.layers.Rescaling(sign, name=f"factor_{sign}")(x))
        parts.append(keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"mean_{sign}")(y))
    return {"P5": keras.layers.Add(name="sum")(parts)}


def batches(count=64, shape=(8, 8, 1), classes=3, batch=16, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    images = rng.normal(100 + 25 * label[:, None, None, None], 20, (count, *shape)).clip(0, 255).astype("uint8")
    return tf.data.Dataset.from_tensor_slices((images, {"label": label})).batch(batch)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "small_cnn", num_classes=3, labels=["a", "b", "c"], input_shape=(8, 8, 1), filters=[8, 12], label_smoothing=0.1
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(batches(), epochs=8, verbose=0)
    return model


@pytest.fixture(scope="module")
def quantized(trained):
    quantized = kv.quantize(trained)
    quantized.compile("adam", learning_rate=1e-3)
    quantized.fit(batches(), validation_data=batches(seed=1), epochs=3, verbose=0)
    return quantized


def test_trains_with_the_same_task_loss(trained):
    quantized = kv.quantize(trained)
    quantized.compile("adam", learning_rate=1e-3)
    history = quantized.fit(batches(), validation_data=batches(seed=1), epochs=2, verbose=0).history
    assert set(history) == {
        f"{prefix}{name}" for prefix in ("", "val_") for name in ("loss", "crossentropy", "accuracy")
    }
    images, targets = next(iter(batches()))
    outputs = quantized(images)
    expected = float(trained.task.loss(targets, outputs)["crossentropy"])
    assert float(quantized.compute_loss(images, targets, outputs)) == pytest.approx(expected, rel=1e-6)
    assert history["loss"] == pytest.approx(history["crossentropy"])


def test_stays_close_to_the_float_model(trained, quantized):
    images = np.concatenate([images for images, _ in batches(seed=2)])
    label = np.concatenate([targets["label"] for _, targets in batches(seed=2)])
    float_accuracy = np.mean(trained.predict(images, verbose=0)["logits"].argmax(1) == label)
    int8_accuracy = np.mean(quantized.predict(images, verbose=0)["logits"].argmax(1) == label)
    assert float_accuracy > 0.8
    assert int8_accuracy >= float_accuracy - 0.05


def test_every_trainable_weight_of_the_model_trains(trained, quantized):
    assert len(quantized.trainable_variables) == len(trained.trainable_variables)


def test_the_input_range_is_what_pixels_become(quantized):
    assert quantized.ranges()["normalized/output"] == (-1.0, 255 / 128 - 1)


def test_output_steps(quantized):
    low, high = quantized.ranges()["logits/output"]
    assert quantized.output_steps() == {"logits": (high - low) / 255}


def test_ranges_are_those_of_the_data(quantized):
    """After 12 steps TFMOT's own moving average would still stand within 2 % of [-6, 6]."""
    images = np.concatenate([images for images, _ in batches()])
    probe = quantized.net.get_layer("quant_stage0_0_relu")
    seen = keras.ops.convert_to_numpy(
        tf.nn.relu(build_probe(quantized, probe.name)(images.astype("float32") / 128 - 1.0))
    )
    low, high = quantized.ranges()["stage0_0_relu/output"]
    assert low == 0.0
    assert high == pytest.approx(seen.max(), rel=0.25)


def build_probe(quantized, name):
    import tf_keras

    layer = quantized.net.get_layer(name)
    return tf_keras.Model(quantized.net.inputs, layer.input)


def test_weights_come_back_in_a_rebuilt_model(trained, quantized, tmp_path):
    quantized.save_weights(tmp_path / "quantized.weights.h5")
    again = kv.quantize(trained)
    again.load_weights(tmp_path / "quantized.weights.h5")
    images, _ = next(iter(batches()))
    np.testing.assert_array_equal(again(images)["logits"], quantized(images)["logits"])
    assert again.ranges() == quantized.ranges()
    again.check_trained()


def test_an_untrained_quantized_model_says_so(trained):
    with pytest.raises(QuantizationError, match=r"never observed.*Fine-tune first"):
        kv.quantize(trained).check_trained()


def test_frozen_batch_normalization_stays_frozen():
    model = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4, 6])
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    quantized = kv.quantize(model)
    assert len(quantized.trainable_variables) == len(model.trainable_variables)

    def statistics():
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        return [w.numpy() for w in quantized.net.weights if w.name.split("/")[-1].split(":")[0] in parts]

    before = statistics()
    quantized.compile("sgd", learning_rate=0.1)
    quantized.fit(batches(), epochs=1, verbose=0)
    assert len(before) == 16
    for old, new in zip(before, statistics(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_frozen_layers_stay_frozen(tmp_path):
    model = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4, 6])
    for layer in model.layers:
        layer.trainable = layer.name == "logits"
    quantized = kv.quantize(model)
    assert len(quantized.trainable_variables) == len(model.trainable_variables) == 2
    kernels = [w for w in quantized.net.weights if "kernel" in w.name and not w.name.endswith(("_min:0", "_max:0"))]
    before = [kernel.numpy() for kernel in kernels]
    quantized.compile("sgd", learning_rate=0.1)
    quantized.fit(batches(), epochs=1, verbose=0)
    moved = [kernel.shape[-1] for kernel, old in zip(kernels, before, strict=True) if (kernel.numpy() != old).any()]
    # The Dense layer's alone, which has the classes as its outputs.
    assert len(kernels) == 5 and moved == [3]
    quantized.save_weights(str(tmp_path / "q.weights.h5"))
    again = kv.quantize(model)
    again.load_weights(str(tmp_path / "q.weights.h5"))
    images = next(iter(batches()))[0]
    np.testing.assert_array_equal(again(images)["logits"], quantized(images)["logits"])


def test_the_float_model_is_left_alone(trained):
    before = [weight.copy() for weight in trained.get_weights()]
    quantized = kv.quantize(trained)
    quantized.compile("sgd", learning_rate=0.1)
    quantized.fit(batches(), epochs=1, verbose=0)
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_calibration_finds_the_ranges_of_the_float_model(trained):
    images = np.concatenate([images for images, _ in batches()])
    quantized = kv.quantize(trained)
    quantized.calibrate(images, batch_size=24)
    quantized.check_trained()
    low, high = quantized.ranges()["stage0_0_relu/output"]
    assert low == 0.0
    assert high == pytest.approx(float(np.max(trained.features("stage0_0_relu").predict(images, verbose=0))), rel=1e-5)
    logits = trained.predict(images, verbose=0)["logits"]
    assert quantized.ranges()["logits/output"] == pytest.approx((logits.min(), logits.max()), rel=1e-4)
    np.testing.assert_allclose(quantized(images)["logits"], logits, atol=0.05 * np.abs(logits).max())


def test_calibration_sees_every_call_of_a_shared_layer():
    model = kv.create_model("test_shared_convolution", num_classes=2)
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 1)).astype("float32")
    quantized = kv.quantize(model)
    quantized.calibrate(images)
    shared = model.get_layer("shared")
    highest = float(np.abs(shared(images / 255)).max())
    assert quantized.ranges()["shared/output"] == pytest.approx((-highest, highest), rel=1e-4)


def test_a_shared_layer_has_one_range_with_what_joins_its_results():
    small = {"backbone": "small_cnn", "backbone_arguments": {"filters": (8, 8, 8, 8, 8), "depth": 1}}
    model = kv.create_model(
        "retinanet", num_classes=2, input_shape=(32, 32, 3), levels=("P3", "P4"), filters=8, depth=1, **small
    )
    quantized = kv.quantize(model)
    for name in ("box_deltas", "class_logits"):
        first, last = (quantized.quantizers[f"{layer}/output"] for layer in (f"head_{name}_conv", name))
        assert first.group is last.group and len(first.group.members) == 2


def test_sensitivity_finds_the_layer_that_costs_most(trained):
    """Weights next to nothing but for one outlier in each filter: 8 bits hold nothing of the rest."""
    from kerasvision.compress import sensitivity

    spoiled = kv.create_model(**{"name": "small_cnn", **trained.get_config()["arguments"]})
    spoiled.set_weights(trained.get_weights())
    layer = spoiled.get_layer("stage1_0_conv")
    (kernel,) = layer.get_weights()
    kernel[0, 0, 0] += 60.0
    layer.set_weights([kernel])
    images = np.concatenate([images for images, _ in batches()])
    found = sensitivity(spoiled, images)
    assert found[0].layer == "stage1_0_conv"
    assert found[0].noise > 5 * found[1].noise
    assert {entry.layer for entry in found} >= {"stage0_0_conv", "stage1_1_conv", "logits"}


def test_a_zero_point_between_two_pixels_moves_into_the_first_biases():
    keras.utils.set_random_seed(0)
    symmetric = {"scale": [1 / 127.5], "offset": [-1.0]}
    model = kv.create_model("small_cnn", num_classes=3, input_shape=(9, 9, 1), filters=[4], preprocessing=symmetric)
    quantized = kv.quantize(model)
    assert quantized.input_quantization == (1 / 127.5, 128)
    assert quantized.ranges()["normalized/output"] == pytest.approx((-128 / 127.5, 127 / 127.5))
    images = np.random.default_rng(0).uniform(0, 255, (8, 9, 9, 1)).round().astype("float32")
    quantized.calibrate(images)
    seen = {}

    def note(name, values, fake):
        seen[name] = values
        return values

    with observed(note):
        quantized(images)
    expected = model.features("stage0_0_relu").predict(images, verbose=0)
    inside = (slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(seen["stage0_0_relu/output"].numpy()[inside], expected[inside], atol=1e-5)
    # Padding stands for half a pixel there.
    np.testing.assert_allclose(seen["stage0_0_relu/output"], expected, atol=9 * 0.5 / 127.5)


def test_only_task_models():
    with pytest.raises(TypeError, match="made by kerasvision.create_model"):
        kv.quantize(keras.Sequential([keras.layers.Dense(1)]))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import kerasvision as kv
from kerasvision.compress.quantizers import observed
keras.utils.set_random_seed(0)
model = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4])
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (32, 8, 8, 1)).astype("uint8")
data = tf.data.Dataset.from_tensor_slices((images, {"label": rng.integers(0, 3, 32)})).batch(16, drop_remainder=True)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    quantized = kv.quantize(model)
    quantized.compile("sgd", learning_rate=0.01)
quantized.fit(data, epochs=3, verbose=0)
quantized.check_trained()
drift = [max(abs(v.numpy() - w.values[0].numpy()).max() for v in w.values) for w in quantized.net.weights
         if w.name.endswith(("_min:0", "_max:0"))]
high = quantized.ranges()["stage0_0_relu/output"][1]
print(len(drift), max(drift), high)
"""


def test_ranges_of_mirrored_replicas_agree():
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    count, drift, high = done.stdout.split()[-3:]
    assert int(count) >= 8
    assert float(drift) == 0.0
    assert 0.0 < float(high) != 6.0
