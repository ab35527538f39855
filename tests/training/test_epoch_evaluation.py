"""The callback that measures detectors and segmenters after each epoch."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerasvision.data.arrays import load_arrays
from kerasvision.detection import DetectionTask
from kerasvision.errors import DataError
from kerasvision.preprocessing import Preprocessing
from kerasvision.segmentation import SegmentationTask
from kerasvision.task import TaskModel
from kerasvision.training.callbacks import Best
from kerasvision.training.epoch_evaluation import EpochEvaluation
from kerasvision.training.fit import check_targets
from kerasvision.training.tensorboard import TensorBoard

SIZE = 16
BOX = [2.0, 4.0, 10.0, 12.0]


class OneBox(DetectionTask):
    """A box, its mask and its score for each image."""

    def __init__(self):
        super().__init__(labels=("cell", "platelet"), image_size=(SIZE, SIZE))
        self.loss_names = ("box",)

    def loss(self, targets, outputs, sample_weight=None):
        return {"box": ops.mean(ops.square(outputs["raw"][:, :4] - targets["boxes"][:, 0]))}

    def monitors(self, targets, outputs):
        return {}

    def decode(self, outputs):
        raw = outputs["raw"]
        there = ops.sigmoid(raw[:, 4])
        columns, rows = (ops.arange(SIZE, dtype="float32") + 0.5 for _ in range(2))
        x0, y0, x1, y1 = (raw[:, side, None, None] for side in range(4))
        inside = (columns[None, None] > x0) & (columns[None, None] < x1)
        inside = inside & (rows[None, :, None] > y0) & (rows[None, :, None] < y1)
        return {
            "boxes": raw[:, None, :4] / SIZE,
            "scores": there[:, None],
            "classes": ops.zeros_like(raw[:, :1], "int32"),
            "count": ops.cast(there > 0.5, "int32"),
            "masks": ops.cast(inside[:, None], "float32"),
        }


@pytest.fixture
def make_model():
    def make(bias, **optimizer):
        inputs = keras.Input((SIZE, SIZE, 1), name="image")
        flat = keras.layers.Flatten()(inputs)
        raw = keras.layers.Dense(5, kernel_initializer="zeros")(flat)
        model = TaskModel(
            inputs, {"raw": raw}, task=OneBox(), preprocessing=Preprocessing(), build={"name": "one", "arguments": {}}
        )
        model.layers[-1].bias.assign(bias)
        model.compile(keras.optimizers.SGD(1e-3, **optimizer))
        return model

    return make


def dataset(valid=True, images=3):
    mask = np.zeros((images, 1, SIZE, SIZE), np.uint8)
    mask[:, :, 4:12, 2:10] = 1
    targets = {
        "boxes": np.tile(np.float32(BOX), (images, 1, 1)),
        "classes": np.zeros((images, 1), np.int32),
        "valid": np.full((images, 1), valid),
        "crowd": np.zeros((images, 1), bool),
        "masks": mask,
    }
    return tf.data.Dataset.from_tensor_slices((np.zeros((images, SIZE, SIZE, 1), np.float32), targets)).batch(2)


def fit(model, data, callbacks, epochs=1):
    return model.fit(data, validation_data=data, epochs=epochs, callbacks=callbacks, verbose=0).history


def test_figures_reach_history_the_best_epoch_and_tensorboard(make_model, tmp_path):
    data = dataset()
    best = Best(None)
    board = TensorBoard(tmp_path, validation_data=data)
    history = fit(make_model([*BOX, 3]), data, [EpochEvaluation(data), best, board], epochs=2)
    assert history["val_AP"] == history["val_AP50"] == history["val_AR1"] == history["val_AP/cell"] == [1, 1]
    assert history["val_AP_small"] == [1, 1]
    assert not {"val_AP/platelet", "val_AP_large"} & history.keys()
    assert best.state["rank"][0] == 1
    tags = {
        value.tag
        for file in (tmp_path / "validation").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"AP", "AP50", "AP/cell"} <= tags


def test_masks_have_names_of_their_own(make_model):
    data = dataset()
    # The box is as long as the true one, and half as wide as its mask.
    history = fit(make_model([2, 4, 10, 8, 3]), data, [EpochEvaluation(data)])
    assert history["val_mask_AP50"] == history["val_AP50"] == [pytest.approx(1)]
    assert history["val_mask_AP75"] == history["val_AP75"] == [0]
    boxes_alone = data.map(lambda images, targets: (images, {k: v for k, v in targets.items() if k != "masks"}))
    assert not [
        name for name in fit(make_model([*BOX, 3]), boxes_alone, [EpochEvaluation(boxes_alone)]) if "mask" in name
    ]


def test_nothing_found_and_nothing_to_find(make_model):
    for valid, bias in ((True, -3), (False, 3), (False, -3)):
        data = dataset(valid)
        history = fit(make_model([*BOX, bias]), data, [EpochEvaluation(data), Best(None)])
        assert history["val_AP"] == history["val_AP75"] == history["val_AR100"] == [0]
        assert ("val_AP/cell" in history) == valid
        assert not any(math.isnan(value) for values in history.values() for value in values)


def test_every_other_epoch(make_model):
    data = dataset()
    best = Best(None)
    history = fit(make_model([*BOX, 3]), data, [EpochEvaluation(data, every=3), best], epochs=5)
    measured = [not math.isnan(value) for value in history["val_AP"]]
    assert measured == [True, False, True, False, True]
    assert best.state["epoch"] in (0, 2, 4)
    with pytest.raises(ValueError, match="every"):
        EpochEvaluation(data, every=0)


def test_averaged_weights_are_measured(make_model):
    data = dataset()
    model = make_model([0, 0, 0, 0, 3], use_ema=True, ema_momentum=0.5)
    seen = []

    class Evaluation(EpochEvaluation):
        def measure(self):
            found = super().measure()
            seen.append((found.boxes.images[0].found.values[0], self.model.layers[-1].bias.numpy()))
            return found

    fit(model, data, [Evaluation(data)])
    measured, trained = seen[0]
    average = keras.ops.convert_to_numpy(model.optimizer._model_variables_moving_average[1])
    assert not np.allclose(average[:4], trained[:4])
    np.testing.assert_allclose(measured, [*average[:2], *(average[2:4] - average[:2])], atol=1e-6)


def test_another_model_can_be_measured(make_model):
    data = dataset()
    evaluation = EpochEvaluation(data, make_model([*BOX, 3]))
    assert fit(make_model([0, 0, 0, 0, 3]), data, [evaluation])["val_AP"] == [1]
    assert evaluation.measure().boxes.breakdown().counts["missed"] == 0


@pytest.fixture
def segmenter():
    """A net that says "cell" everywhere."""
    inputs = keras.Input((SIZE, SIZE, 1), name="image")
    logits = keras.layers.Conv2D(2, 1, kernel_initializer="zeros")(inputs)
    model = TaskModel(
        inputs,
        {"logits": logits},
        task=SegmentationTask(labels=("ground", "cell"), image_size=(SIZE, SIZE)),
        preprocessing=Preprocessing(),
        build={"name": "all", "arguments": {}},
    )
    model.layers[-1].bias.assign([0, 1])
    model.compile(keras.optimizers.SGD(1e-6))
    return model


def test_figures_of_a_segmenter(segmenter, tmp_path):
    classes = np.zeros((3, SIZE, SIZE), np.uint8)
    classes[:, :4], classes[:, 4:8] = 1, 255
    data = tf.data.Dataset.from_tensor_slices((np.zeros((3, SIZE, SIZE, 1), np.float32), {"segmentation": classes}))
    data = data.batch(2)
    evaluation, best = EpochEvaluation(data), Best(None)
    board = TensorBoard(tmp_path, train_data=data, validation_data=data, evaluation=evaluation)
    history = fit(segmenter, data, [evaluation, best, board])
    # A third of the pixels that are not void is of the class that all are given.
    assert history["val_IoU/cell"] == history["val_pixel_accuracy"] == [pytest.approx(1 / 3)]
    assert history["val_mIoU"] == [pytest.approx(1 / 6)] and best.state["rank"][0] == pytest.approx(1 / 6)
    assert evaluation.latest.confusion.tolist() == [[0, 3 * 8 * SIZE], [0, 3 * 4 * SIZE]]
    tags = EventAccumulator(str(tmp_path / "validation")).Reload().Tags()["tensors"]
    assert {"mIoU", "IoU/cell", "predictions", "confusion_matrix"} <= set(tags)


def test_targets_of_segmentation():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    maps = load_arrays(images, segmentation=np.eye(8, dtype=np.uint8)[None].repeat(4, axis=0))
    check_targets(maps, "segmentation")
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, 2:4, 2:4] = 1
    boxes = [np.float32([[2, 2, 4, 4]])] * 4
    objects = load_arrays(images, boxes=boxes, classes=[np.zeros(1, int)] * 4, masks=[masks] * 4, names=["cell"])
    check_targets(objects.with_class_maps(), "segmentation")
    with pytest.raises(DataError, match=r'learns from "segmentation".*boxes, masks.*data\.class_maps'):
        check_targets(objects, "segmentation")
    with pytest.raises(DataError, match='learns from "boxes"'):
        check_targets(maps, "detection")
