"""The fields of a recipe: nested frozen dataclasses that only store."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Optimizer = Literal["adam", "adamw", "sgd", "lamb", "lion", "rmsprop"]
Sampling = Literal["balanced", "square_root", "effective_number", "over", "under", "repeat_factor"]


@dataclasses.dataclass(frozen=True)
class DataRecipe:
    """Where the images come from and how they are split and changed.

    Args:
        source: a folder, a CSV file, or the name of a set ("digits", "tfds:NAME").
        format: how to read it; recognised when None.
        validation_fraction: share of the training images taken out where the source has no validation split.
        test_fraction: the same for a test split.
        split_seed: of that split; it stays as it is when the run's seed changes.
        split: how images are taken out: "stratified" (the same share of each class), "random", or "group" (asks for
            groups). No rule divides a group.
        group_pattern: regular expression that finds an image's group in its path, such as "patient_(\\d+)"; without
            one, a CSV file's column "group", and the videos that frames come from.
        split_file: a saved split, such as another run's split.json, in place of these.
        frame_step: of videos: every so many frames one is taken.
        on_bad_files: "stop" lists the files that cannot be read, "skip" goes on without them.
        multi_label: an image may carry any number of labels.
        limit: at most so many images of each split.
        sampling: how often the training images of each class are seen, a rule of `kerasvision.data.balance.repeats`;
            each once an epoch when None.
        augment: transforms of the training images: names, or {"name": ..., parameters}, in this order.
        max_objects: of a training image count at most so many, the largest; all when None. The time and memory of a
            detector's step grow with the image that has the most.
        cache: whether decoded images may be kept in memory.
        class_maps: arguments of `kerasvision.class_maps.ClassMaps`, such as {"width": 2}: objects become classes of
            pixels, for segmentation; they stay what they are when None.
    """

    source: str
    format: str | None = None
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.0
    split_seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["stratified", "random", "group"] = "stratified"
    group_pattern: str | None = None
    split_file: str | None = None
    frame_step: Count = 1
    on_bad_files: Literal["stop", "skip"] = "stop"
    multi_label: bool = False
    limit: Count | None = None
    sampling: Sampling | None = None
    augment: tuple[str | dict[str, Any], ...] = ()
    max_objects: Count | None = None
    cache: bool = True
    class_maps: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class ModelRecipe:
    """The `create_model` call; classes and labels come from the data.

    Args:
        name: a name from `list_models`.
        input_shape: (height, width, channels); the model's usual size when None.
        weights: None for fresh ones, a name such as "imagenet", or the path of a file.
        task: only needed where the name serves several tasks.
        arguments: of the task, the head and the builder, such as {"alpha": 0.5, "label_smoothing": 0.1}.
    """

    name: str
    input_shape: tuple[Count, Count, Count] | None = None
    weights: str | None = None
    task: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StageRecipe:
    """Epochs in which a part of the net learns (gradual unfreezing: Howard & Ruder, 2018, arXiv:1801.06146).

    Args:
        epochs: passes over the training images.
        unfreeze: what learns, as in `TrainRecipe`.
        learning_rate: the highest one; `train.learning_rate` when None.
    """

    epochs: Count
    unfreeze: str
    learning_rate: Positive | None = None


@dataclasses.dataclass(frozen=True)
class TrainRecipe:
    """The schedule.

    A training has up to three parts: `freeze_epochs`, `stages`, and `epochs`. The last two differ in what learns and
    for how long; each stage has an optimizer, a warm-up and a schedule of its own, and goes on from the last weights
    of the one before it.

    Args:
        epochs: passes over the training images, after `freeze_epochs` and `stages`; may be 0 where there are those.
        batch_size: images in a step, over all devices together.
        optimizer: by name.
        learning_rate: the highest one, reached after the warm-up.
        schedule: "cosine" falls to `final_learning_rate` (Loshchilov & Hutter, 2017, arXiv:1608.03983), "poly"
            does so along the share of the steps that are left, to the power of 0.9 (Chen et al., 2017,
            arXiv:1606.00915), "constant" stays after the warm-up.
        warmup_epochs: epochs in which the learning rate rises linearly from near zero; may be a fraction.
        final_learning_rate: last one of the schedule, as a share of `learning_rate`.
        momentum: of "sgd" and "rmsprop".
        nesterov: of "sgd".
        weight_decay: decoupled, times the learning rate; biases and normalization layers are spared.
        clip_norm: longest gradient, as the norm over all weights together.
        ema: momentum of a moving average of the weights, such as 0.999; it is what is validated and kept. None: off.
        label_smoothing: overrides the model's own argument where it is not None.
        class_weights: "balanced" and "effective_number" weigh each image, or each pixel of a segmenter's, by the rarity
            of its class; {label: cost} weighs it as told, 1 where a label is left out; see `class_weights` and
            `pixel_weights` of `kerasvision.data.balance` (single label only).
        monitor: what decides which epoch is the best, such as "val_loss"; the task's primary metric on the
            validation images where it can be watched, else "val_loss", when None.
        keep: "best" or "last" epoch's weights.
        early_stopping: epochs without a better `monitor` after which training, or a stage of it, ends; None: never.
        mixed_precision: compute in 16 bits, keep the weights in 32.
        xla: compile the training step with XLA.
        strategy: "mirrored" trains on all devices of this machine at once, with synchronized batch normalization.
        freeze_epochs: epochs in which only the head learns, on features computed once.
        freeze_learning_rate: of those epochs; with Adam.
        freeze_passes: how often the features are computed: once plainly, each further time on augmented images.
        stages: what learns between `freeze_epochs` and `epochs`, such as {"epochs": 3, "unfreeze": "P5"}, from the top
            of the net down.
        unfreeze: what learns in `epochs`: "all"; "none" (the head alone); a tap such as "P4": its stage of the net and
            all above; or a layer: all that the layer does not depend on.
        layer_decay: each stage of the net has this times the learning rate of the one above it; the head has the whole.
        layer_factors: tap, "head" or layer -> its share of the learning rate, in place of what `layer_decay` gives it.
        bn_frozen: batch normalization stays in inference mode; None: it does after `freeze_epochs` or `stages`.
        checkpoint_steps: also write a checkpoint every so many steps, not only after each epoch.
        histograms: write histograms of the weights for TensorBoard.
    """

    epochs: Epochs = 10
    batch_size: Count = 32
    optimizer: Optimizer = "adam"
    learning_rate: Positive = 1e-3
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_epochs: NotNegative = 0.0
    final_learning_rate: Fraction = 0.0
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Positive | None = None
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    label_smoothing: Fraction | None = None
    class_weights: Literal["balanced", "effective_number"] | dict[str, NotNegative] | None = None
    monitor: str | None = None
    keep: Literal["best", "last"] = "best"
    early_stopping: Count | None = None
    mixed_precision: Literal["mixed_float16", "mixed_bfloat16"] | None = None
    xla: bool = False
    strategy: Literal["mirrored"] | None = None
    freeze_epochs: Epochs = 0
    freeze_learning_rate: Positive = 1e-3
    freeze_passes: Count = 1
    stages: tuple[StageRecipe, ...] = ()
    unfreeze: str = "all"
    layer_decay: Share = 1.0
    layer_factors: dict[str, Positive] = dataclasses.field(default_factory=dict)
    bn_frozen: bool | None = None
    checkpoint_steps: Count | None = None
    histograms: bool = False


@dataclasses.dataclass(frozen=True)
class QuantizeRecipe:
    """Quantization-aware fine-tuning of the trained model.

    Args:
        enabled: whether to do it.
        epochs: passes over the training images.
        learning_rate: at its start; it falls in a cosine.
        optimizer: by name.
        batch_size: images in a step; as in training when None.
        islands: names of layers that stay in float on purpose.
        weights: number format of the kernels; see `kerasvision.quantize`.
        keep: "best" epoch by `train.monitor`, or "last".
        bn_frozen: batch normalization stays in inference mode: the moving averages of the training are worth more than
            statistics of a few batches.
    """

    enabled: bool = True
    epochs: Count = 2
    learning_rate: Positive = 1e-4
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    batch_size: Count | None = None
    islands: tuple[str, ...] = ()
    weights: Literal["int8", "int4", "power_of_two", "additive_power_of_two"] = "int8"
    keep: Literal["best", "last"] = "best"
    bn_frozen: bool = True


Quantization = Literal["none", "float16", "dynamic", "int8", "int16x8", "qat"]
Export = tuple[Literal["tflite", "saved_model", "onnx"], Quantization]


@dataclasses.dataclass(frozen=True)
class ExportRecipe:
    """The files that are written, run again and compared.

    Args:
        formats: (format, quantization) of each.
        samples: real images on which a file is compared with the model.
        calibration: training images that set the ranges of an "int8" file.
        threads: of the latency measurement.
        benchmark: whether to measure latency.
    """

    formats: tuple[Export, ...] = (("tflite", "none"), ("tflite", "qat"))
    samples: Count = 64
    calibration: Count = 200
    threads: Count = 2
    benchmark: bool = True


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole run.

    Args:
        data: images.
        model: net.
        train: schedule.
        quantize: quantization-aware fine-tuning.
        export: files.
        seed: of initial weights, shuffling, augmentation and dropout.
    """

    data: DataRecipe
    model: ModelRecipe
    train: TrainRecipe = TrainRecipe()
    quantize: QuantizeRecipe = QuantizeRecipe()
    export: ExportRecipe = ExportRecipe()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


_PARTS: tuple[Any, ...] = (DataRecipe, ModelRecipe, StageRecipe, TrainRecipe, QuantizeRecipe, ExportRecipe, Recipe)
for _part in _PARTS:
    _part.__pydantic_config__ = {"extra": "forbid"}
