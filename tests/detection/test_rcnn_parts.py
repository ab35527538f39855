"""R-CNN's parts: pixels of warped boxes, hard negatives, a linear rule, the paper's deltas."""

import numpy as np
import pytest

from kerasvision.boxes.coding import decode_deltas, encode_deltas
from kerasvision.detection.rcnn_parts import regress, separate, warp


class TestWarp:
    def test_the_box_lies_within_the_context(self):
        """A box of 8 x 4 pixels, twice and four times as large, and four pixels around it."""
        image = np.zeros((30, 40, 3), np.uint8)
        image[10:14, 20:28] = 200
        (square,) = warp(image, np.array([[20, 10, 28, 14]], np.float32), 24, 4)
        # Halves of pixels are mixed at the edges.
        assert (square[6:18, 6:18] == 200).all() and (square[[0, -1]] == 0).all() and (square[:, [0, -1]] == 0).all()
        np.testing.assert_allclose(square[..., 0].mean(), 200 * 16 * 16 / 24**2, rtol=0.02)

    def test_the_same_size_is_a_copy(self):
        image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
        (square,) = warp(image, np.array([[7, 5, 17, 15]], np.float32), 16, 3)
        np.testing.assert_array_equal(square, image[2:18, 4:20])

    def test_outside_is_the_mean_color(self):
        image = np.zeros((20, 20, 3), np.uint8)
        image[:, 10:] = (40, 80, 120)
        (square,) = warp(image, np.array([[0, 0, 10, 10]], np.float32), 20, 5)
        np.testing.assert_array_equal(square[0, 0], [20, 40, 60])
        np.testing.assert_array_equal(square[10, 10], [0, 0, 0])
        assert warp(image[..., :1], np.array([[3, 3, 3, 3], [-9, -9, 90, 90]], np.float32), 8).shape == (2, 8, 8, 3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestLearners:
    def test_hard_negatives_are_found(self):
        """The first draw misses the few negatives that lie beside the positives: only mining tells them apart."""
        random = np.random.default_rng(0)
        positives = random.normal((3, 3), 0.2, (40, 2))
        easy, hard = random.normal((-20, -20), 3, (4000, 2)), random.normal((3, 0.5), 0.2, (20, 2))
        features = np.concatenate([positives, easy, hard]).astype(np.float32)
        pool = np.arange(40, len(features))

        def mistakes(rounds):
            weights, offset = separate(features, np.arange(40), pool, c=1.0, most=60, rounds=rounds)
            values = features @ weights + offset
            return (values[:40] < 0).sum(), (values[40:] > 0).sum()

        assert mistakes(1)[1] == 20
        assert mistakes(4) == (0, 0)

    def test_regression_finds_a_linear_rule(self):
        random = np.random.default_rng(1)
        rule, features = random.normal(size=(6, 4)), random.normal(size=(300, 6)).astype(np.float32)
        weights, offsets = regress(features, features @ rule + 0.5, 1e-3)
        np.testing.assert_allclose(weights, rule, atol=1e-3)
        np.testing.assert_allclose(offsets, 0.5, atol=1e-3)

    def test_deltas_are_those_of_the_paper(self):
        proposal, truth = np.array([[10.0, 20, 30, 60]]), np.array([[14.0, 10, 54, 50]])
        expected = [(34 - 20) / 20, (30 - 40) / 40, np.log(40 / 20), np.log(40 / 40)]
        deltas = encode_deltas(truth, proposal, (1.0,) * 4)
        np.testing.assert_allclose(deltas[0], expected, atol=1e-6)
        np.testing.assert_allclose(decode_deltas(deltas, proposal, (1.0,) * 4), truth, rtol=1e-6)
