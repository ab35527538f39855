"""Three families whose int8 files lose accuracy or stay in float elsewhere: float, post-training int8, QAT int8.

    python benchmarks/hard_families.py [--images 20000] [--epochs 3] [--json] [MODEL...]

MobileNetV3 has hard-swish and squeeze-and-excitation, DenseNet and ResNetV2 normalize in front of their convolutions.
Trained on Fashion-MNIST from fresh weights at 32x32, a recipe for comparing files, not for the best accuracy. All
figures are of exported TFLite files on the 10,000 test images; the float file is the peer.
"""

import argparse
import tempfile

import keras
from table import row, show

import kerasvision as kv
from kerasvision.data import Data

MODELS = ("mobilenet_v3_small", "densenet121", "resnet18_v2")
SIZE = (32, 32)
BATCH = 128
LARGEST_LOSS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--images", type=int, default=20000, help="training images")
    parser.add_argument("--epochs", type=int, default=3, help="of the float model; quantization adds one")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()

    data = kv.load_data("fashion_mnist")
    data.splits["train"] = data.splits["train"][: arguments.images]
    rows = []
    for name in arguments.models:
        rows += compare(name, data, arguments.epochs)
    show(rows, title="Fashion-MNIST, accuracy", ours="int8 file", peer="float file", as_json=arguments.json)


def compare(name: str, data: Data, epochs: int) -> list[dict]:
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, labels=data.labels, input_shape=(*SIZE, 1))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # The families' 0.99 and 0.999 are for long trainings.

    def batches(split: str, **options: object) -> object:
        return data.batches(split, image_size=SIZE, channels=1, batch_size=BATCH, **options)

    train = batches("train", shuffle=True, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * len(train))
    model.compile(keras.optimizers.Adam(rate))
    model.fit(train, epochs=epochs, verbose=2)
    for layer in model.layers:
        # The statistics of a trained net stand still: those of single batches would undo the training.
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    quantized = kv.quantize(model)
    quantized.compile("adam", learning_rate=3e-5)
    quantized.fit(train, epochs=1, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        options = {"data": batches("train"), "benchmark": False}
        accuracy = {
            kind: kv.evaluate(kv.export(source, folder, quantization=kind, **options).path, data)["accuracy"]
            for kind, source in (("none", model), ("int8", model), ("qat", quantized))
        }
    least = 1 - LARGEST_LOSS / accuracy["none"]
    return [
        row(f"{name} {what}", accuracy[kind], accuracy["none"], "share", least, "least")
        for kind, what in (("int8", "by calibration"), ("qat", "by QAT"))
    ]


if __name__ == "__main__":
    main()
