"""kerasvision train pipelines/fashion_mnist.py: 22 minutes on two cores; 0.93 float and int8 on the 10,000 test images.

70,000 garments of 28x28 grey pixels (Xiao et al., 2017, arXiv:1708.07747), found in Debian's package
dataset-fashion-mnist, in KERASVISION_DATA, or downloaded by Keras.
"""

from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

recipe = Recipe(
    data=DataRecipe(source="fashion_mnist", validation_fraction=0.05, augment=("flip", {"name": "crop", "padding": 2})),
    model=ModelRecipe(
        name="small_cnn", input_shape=(28, 28, 1), arguments={"filters": [24, 48, 96], "label_smoothing": 0.05}
    ),
    train=TrainRecipe(
        epochs=18, batch_size=128, optimizer="adamw", learning_rate=3e-3, weight_decay=0.02, warmup_epochs=2
    ),
    quantize=QuantizeRecipe(epochs=2, learning_rate=1e-4),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "int8"), ("tflite", "qat"))),
)
