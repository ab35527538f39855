"""What a run's quantization-aware training leaves as it was."""

import numpy as np
import pytest

from kerasvision.recipe import QuantizeRecipe, TrainRecipe
from kerasvision.training.fit import build_model, training_batches
from kerasvision.training.quantization import fresh_quantized


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_the_training_stay_unless_asked(frozen, recipe, digits):
    made = recipe(TrainRecipe(epochs=1, batch_size=20), quantize=QuantizeRecipe(bn_frozen=frozen))
    quantized = fresh_quantized(made, build_model(made, digits))

    def statistics():
        return np.concatenate([weight.numpy() for weight in quantized.weights if "moving_mean" in weight.name])

    before = statistics()
    quantized.compile("adam", learning_rate=1e-3)
    quantized.fit(training_batches(made, digits, quantized, 20), epochs=1, verbose=0)
    assert len(before) == 24 and np.array_equal(statistics(), before) == frozen
