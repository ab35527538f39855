"""The recipe of `kerasvision demo`: scikit-learn's digits, which are on every machine."""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe


def digits() -> Recipe:
    """The choices of pipelines/digits.py, which is not installed with the package."""
    return Recipe(
        data=DataRecipe(source="digits", augment=({"name": "crop", "padding": 1}, {"name": "rotate", "degrees": 10})),
        model=ModelRecipe(
            name="small_cnn", input_shape=(8, 8, 1), arguments={"filters": [32, 64], "label_smoothing": 0.1}
        ),
        train=TrainRecipe(
            epochs=25, batch_size=32, optimizer="adamw", learning_rate=3e-3, warmup_epochs=2, keep="last"
        ),
        quantize=QuantizeRecipe(epochs=3, learning_rate=3e-4),
        export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
    )
