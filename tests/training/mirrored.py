"""A net on two devices learns what it learns on one.

Run as a script, because logical devices are set up once for a process: `python -m training.mirrored FOLDER NET`.
"""

import subprocess
import sys
from pathlib import Path

SIZE = (64, 64)
_HALF = ["P3", "P4"]
_YOLO = {"filters": [16, 24], "levels": _HALF, "anchors": [[14, 24], [24, 14], [18, 18], [28, 28]]}
_REGIONS = {"levels": ["P2", *_HALF], "anchor_size": 4.0, "filters": 32, "head_widths": [64], "canonical_size": 56.0}
_REGIONS |= {"proposals": 60, "candidates": 60}
DETECTORS = {
    "retinanet": {"levels": ["P2", "P3"], "filters": 16, "depth": 1, "separable": True, "normalized": True},
    "ssdlite": {"levels": [*_HALF, "P5"], "extra_filters": [32], "scales": [0.2, 0.35, 0.5, 0.7, 0.9]},
    "yolov1": {"filters": 32, "units": 64, "dropout": 0.0, "stride": 32},
    "yolov3": _YOLO,
    "yolov3_masks": {**_YOLO, "prototypes": 8, "prototype_filters": 16},
    "anchor_free_s": {"filters": 16, "bins": 8, "levels": _HALF},
    "fast_rcnn": {"level": "P3", "proposals": 40, "head_widths": [64], "samples": 32},
    "faster_rcnn": _REGIONS,
    "mask_rcnn": {**_REGIONS, "masks": 20, "mask_filters": 16, "mask_depth": 2},
}
# Without dropout, whose random numbers differ from device to device.
SEGMENTERS = {
    "unet": {},
    "attention_unet": {},
    "deeplabv3": {"dropout": 0.0},
    "deeplabv3_plus": {"dropout": 0.0},
    "fcn_8s": {"dropout": 0.0},
    "lraspp": {},
}
# A higher rate would let roundings grow into differences; gradients of this net's masks are a hundred times as long.
RATE, RATES = 3e-4, {"yolov3_masks": 3e-6}
# Figures of single batches, which nothing is decided by: devices show the mean of theirs.
OF_BATCHES = ("pixel_accuracy", "batch_mIoU", "val_batch_mIoU")


def check(folder, name):
    """Train a net in a process of its own, on one device and on two; a detector in bfloat16 as well."""
    command = [sys.executable, "-m", "training.mirrored", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "devices 2" in done.stdout


def arguments_of(name):
    """Of a tiny net of that name, for `create_model`."""
    from segmentation.contract import NETS, TINY

    return {**TINY, **DETECTORS[name]} if name in DETECTORS else {**NETS[name][0], **SEGMENTERS[name]}


def examples_of(name):
    """Labels, and 28 examples of `Data`."""
    return _objects() if name in DETECTORS else _pixels()


def _objects():
    """Rectangles with boxes and masks; one image has none."""
    import numpy as np
    from detection import contract

    images, targets = contract.rectangles(28, SIZE[0])
    targets["valid"][3] = False
    examples = []
    for image, boxes, classes, valid in zip(
        images, targets["boxes"], targets["classes"], targets["valid"], strict=True
    ):
        corners = boxes[valid][:, [0, 1, 2, 1, 2, 3, 0, 3]].tolist()
        kept = {"boxes": boxes[valid], "classes": classes[valid], "crowd": np.zeros(valid.sum(), bool)}
        examples.append({"image": image.astype(np.uint8), **kept, "masks": [[corner] for corner in corners]})
    return ("red", "blue"), examples


def _pixels():
    """Rectangles with a class map; that of one image is void."""
    import numpy as np
    from segmentation import contract

    images, targets = contract.scene(SIZE, 28)
    targets["segmentation"][3] = contract.VOID
    pairs = zip(images, targets["segmentation"], strict=True)
    return contract.LABELS, [{"image": image.astype(np.uint8), "segmentation": classes} for image, classes in pairs]


def _main(folder, name):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import numpy as np

    from kerasvision.data import Data
    from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe
    from kerasvision.training import fit
    from kerasvision.training.folder import RunFolder

    # Its pictures take longer than such a net.
    fit.TensorBoard = lambda *arguments, **options: keras.callbacks.Callback()
    labels, examples = examples_of(name)
    # Six batches an epoch: of fewer, Keras's look at the first one would begin the order of another epoch.
    data = Data(labels, {"train": examples[:24], "validation": examples[24:]})
    model = ModelRecipe(name, (*SIZE, 3), arguments=arguments_of(name))

    def recipe(**fields):
        rate = RATES.get(name, RATE)
        train = TrainRecipe(epochs=1, batch_size=4, learning_rate=rate, optimizer="sgd", keep="last", **fields)
        return Recipe(DataRecipe("rectangles"), model, train, QuantizeRecipe(enabled=False), ExportRecipe(formats=()))

    def run(label, **fields):
        own = RunFolder(f"{folder}/{label}")
        own.open(recipe(**fields), resume=True, overwrite=False)
        history = fit.train_model(recipe(**fields), data, own, progress=False)["history"]
        return history, learned(keras.saving.load_model(own.model))

    def learned(net):
        return np.concatenate([np.ravel(weight) for weight in net.trainable_weights])

    (one, weights), (two, others) = run("one"), run("two", strategy="mirrored")
    for key in one:
        if key not in OF_BATCHES:
            # A few pixels or boxes change sides.
            tolerance = {"rtol": 1e-3, "atol": 1e-4} if key.endswith(("loss", "crossentropy")) else {"atol": 5e-3}
            np.testing.assert_allclose(two[key], one[key], **tolerance, err_msg=key)
    keras.utils.set_random_seed(recipe().seed)
    way = np.linalg.norm(weights - learned(fit.build_model(recipe(), data)))
    apart = np.linalg.norm(weights - others)
    print("way", way, "apart", apart)
    assert apart < 0.02 * way
    if name in DETECTORS:
        half, _ = run("half", mixed_precision="mixed_bfloat16", schedule="cosine")
        assert abs(half["loss"][0] / one["loss"][0] - 1) < 0.1, (half["loss"], one["loss"])
    print("devices", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).num_replicas_in_sync)


if __name__ == "__main__":
    _main(*sys.argv[1:])
