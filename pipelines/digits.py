"""kerasvision train pipelines/digits.py: half a minute on two cores; 0.99 float and int8 on 359 test images.

The 1,797 handwritten digits of 8x8 pixels inside scikit-learn (Alpaydin & Kaynak, 1998), for a first look at the
whole way: train, quantize, export, prove.
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(source="digits", augment=({"name": "crop", "padding": 1}, {"name": "rotate", "degrees": 10})),
    model=ModelRecipe(name="small_cnn", input_shape=(8, 8, 1), arguments={"filters": [32, 64], "label_smoothing": 0.1}),
    train=TrainRecipe(epochs=25, batch_size=32, optimizer="adamw", learning_rate=3e-3, warmup_epochs=2, keep="last"),
    quantize=QuantizeRecipe(epochs=3, learning_rate=3e-4),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
