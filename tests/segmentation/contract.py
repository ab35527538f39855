"""What every segmentation net must do, on images of coloured rectangles that a tiny net learns in seconds."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kerasvision as kv
from kerasvision.export.coverage import float_ops, op_histogram, read_graph

COLOURS = ((230, 40, 40), (40, 60, 230))
LABELS = ["ground", "red", "blue"]
VOID = 255
# P0 to P5.
TINY = {"backbone": "small_cnn", "backbone_arguments": {"filters": [8, 16, 16, 32, 32, 48], "depth": 1}}
# One small net of every architecture, for what is the same for all of them: name, arguments, image, size of the logits.
NETS = {
    "fcn_8s": ({**TINY, "filters": 24}, (64, 64), (64, 64)),
    "unet": ({**TINY, "filters": [24, 16, 16, 8, 8]}, (64, 64), (64, 64)),
    "attention_unet": ({**TINY, "filters": [24, 16, 16, 8], "up": "transposed"}, (64, 64), (32, 32)),
    "unet_valid": ({"filters": [8, 16, 24]}, (92, 92), (52, 52)),
    "deeplabv3": ({**TINY, "filters": 24, "rates": [1, 2, 3], "auxiliary": True}, (64, 64), (4, 4)),
    "deeplabv3_plus": ({**TINY, "filters": 24, "separable": True, "low_level_filters": 12}, (64, 64), (16, 16)),
    "lraspp": ({**TINY, "filters": 24}, (64, 64), (8, 8)),
}


def create(name, size=None, channels=3, **arguments):
    """The small net of that architecture."""
    given, usual, _ = NETS[name]
    keras.utils.set_random_seed(0)
    arguments = {"labels": LABELS, **given, **arguments}
    return kv.create_model(name, input_shape=(*(size or usual), channels), **arguments)


def scene(size, count=12, seed=0):
    """Images float32 [count, H, W, 3] and class maps: 1 to 3 rectangles, a class is a colour; void in a corner."""
    random = np.random.default_rng(seed)
    images = random.uniform(90, 150, (count, *size, 3)).astype(np.float32)
    classes = np.zeros((count, *size), np.uint8)
    for index in range(count):
        for _ in range(random.integers(1, 4)):
            sides = [random.integers(side // 3, side * 2 // 3) for side in size]
            top, left = (random.integers(0, side - own + 1) for side, own in zip(size, sides, strict=True))
            kind = random.integers(len(COLOURS))
            area = index, slice(top, top + sides[0]), slice(left, left + sides[1])
            images[area] = COLOURS[kind]
            classes[area] = 1 + kind
    classes[:, :3, :5] = VOID
    return images, {"segmentation": classes}


def randomize(model, seed=0):
    """Statistics of batch normalizations, and score convolutions that start at zero, become something."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    for weight in model.trainable_weights:
        if weight.name == "kernel" and not np.any(weight):
            weight.assign(random.normal(0, 0.3, weight.shape))


def learn(model, epochs, rate=1e-2):
    """mIoU on the images it was trained with, each measured where the net says something."""
    images, targets = scene(model.image_size)
    steps = epochs * -(-len(images) // 4)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)))
    model.fit(images, targets, batch_size=4, epochs=epochs, verbose=0)
    found = np.asarray(model.task.decode(model.predict(images, verbose=0))["classes"])
    assert found.shape == targets["segmentation"].shape and found.dtype == np.int32
    known = (found != VOID) & (targets["segmentation"] != VOID)
    found, wanted = found[known], targets["segmentation"][known]
    overlaps = [np.sum((found == k) & (wanted == k)) / np.sum((found == k) | (wanted == k)) for k in range(3)]
    return float(np.mean(overlaps))


def check_outputs(name):
    """Names, shapes and types of the outputs; taps; stock layers under names of their own."""
    model = create(name)
    _, size, logits = NETS[name]
    assert model.output["logits"].shape == (None, *logits, 3)
    assert all(key == "logits" or key.startswith("auxiliary") for key in model.output)
    assert {output.dtype for output in model.output.values()} == {"float32"}
    assert model.image_size == size and "P2" in model.taps
    assert all(type(layer).__module__.startswith("keras.src.layers.") for layer in model.layers)
    assert len({layer.name for layer in model.layers}) == len(model.layers)


def check_half(name):
    """Under a policy of bfloat16, outputs and gradients are float32, and the loss is nearly that of float32."""
    model = create(name)
    randomize(model)
    images, targets = scene(model.image_size, 2)
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        half = create(name)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    assert {output.dtype for output in half.output.values()} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in half.layers}
    losses = [sum(each.task.loss(targets, each(images, training=False)).values()) for each in (model, half)]
    np.testing.assert_allclose(*losses, rtol=0.1)
    with tf.GradientTape() as tape:
        loss = half.compute_loss(images, targets, half(images, training=True))
    gradients = tape.gradient(loss, [weight.value for weight in half.trainable_weights])
    assert all(gradient.dtype == "float32" and np.isfinite(gradient).all() for gradient in gradients)
    assert np.mean([np.any(gradient) for gradient in gradients]) > 0.9


def check_odd_size(name, size):
    """Sides that no stride divides: logits, loss with gradients, and a class for every pixel."""
    model = create(name, size)
    images, targets = scene(size, 2)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = sum(model.task.loss(targets, outputs).values())
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert np.isfinite(loss) and all(np.isfinite(gradient).all() for gradient in gradients)
    assert model.task.decode(outputs)["classes"].shape == (2, *size)
    return tuple(outputs["logits"].shape[1:3])


def check_saves(name, path):
    """The file gives a model with the same outputs and the same settings."""
    model = create(name)
    randomize(model)
    images, _ = scene(model.image_size, 2)
    model.save(path)
    again = keras.saving.load_model(path)
    assert again.get_config() == model.get_config()
    for key, values in model(images).items():
        np.testing.assert_array_equal(values, again(images)[key], err_msg=key)
    first, second = (each.task.decode(each(images))["classes"] for each in (model, again))
    np.testing.assert_array_equal(first, second)


def check_int8(model):
    """The net of an int8 file: no op in float and no island, and the numbers of the fake-quantized net.

    Returns:
        Op name -> how often.
    """
    randomize(model)
    images, targets = scene(model.image_size, 8)
    quantized = kv.quantize(model)
    quantized.calibrate(images)
    exact, fake = model(images, training=False), quantized(images, training=False)
    assert np.mean(np.abs(fake["logits"] - exact["logits"])) < 0.1 * np.std(exact["logits"])
    losses = [sum(model.task.loss(targets, outputs).values()) for outputs in (exact, fake)]
    np.testing.assert_allclose(*losses, rtol=0.1)
    content = _convert(quantized)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        path.write_bytes(content)
        graph = read_graph(path)
    known = {layer.name.removeprefix("quant_") for layer in quantized.net.layers}
    assert quantized.islands == ()
    assert float_ops(graph, known) == []
    runner = Interpreter(model_content=content).get_signature_runner()
    received = np.concatenate([runner(image=image[None])["logits"] for image in quantized.normalized(images).numpy()])
    step = np.ptp(fake["logits"]) / 255
    assert np.mean(np.abs(received - fake["logits"])) < 1.5 * step
    assert np.std(received) > 5 * step
    return op_histogram(graph)


def _convert(quantized):
    spec = tf.TensorSpec((1, *quantized.net.input_shape[1:]), tf.float32, name="image")
    function = tf.function(lambda image: quantized.net(image, training=False), input_signature=[spec], autograph=False)
    module = tf.Module()
    module.read = list(function.get_concrete_function().graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()
