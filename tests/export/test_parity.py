import numpy as np
import pytest

from kerasvision.errors import ExportError
from kerasvision.export.parity import carried_steps, check_parity, compare, in_batches


def figures(maximum, mean_lsb=None):
    lsb = None if mean_lsb is None else {"max": mean_lsb, "mean": mean_lsb, "p99": mean_lsb}
    return {"scores": {"max": maximum, "mean": maximum, "p99": maximum, "lsb": lsb}}


def test_differences_by_hand():
    file, model = {"a": np.array([[0.0, 0.5], [1.0, 0.0]])}, {"a": np.array([[0.0, 0.0], [0.75, 0.0]])}
    result = compare(file, model, {"a": (0.25, 0)})["a"]
    assert (result["max"], result["mean"]) == (0.5, 0.1875)
    assert result["p99"] == pytest.approx(np.percentile([0, 0.5, 0.25, 0], 99))
    assert (result["lsb"]["max"], result["lsb"]["mean"]) == (2.0, 0.75)
    assert compare(file, model, {"a": None})["a"]["lsb"] is None


@pytest.mark.parametrize(
    ("parity", "exact", "integer", "allowed"),
    [
        (figures(9e-5), True, False, True),
        (figures(2e-4), True, False, False),
        (figures(0.1), False, False, True),  # float16, dynamic range, 16-bit activations
        (figures(0.1, 1.4), True, True, True),
        (figures(0.1, 1.6), True, True, False),
        (figures(float("nan")), False, False, False),
        (figures(float("inf")), True, True, False),
    ],
)
def test_the_gates(parity, exact, integer, allowed):
    if allowed:
        check_parity(parity, integer, "the file", exact=exact)
    else:
        with pytest.raises(ExportError, match='the file.*output "scores"'):
            check_parity(parity, integer, "the file", exact=exact)


def test_steps_are_carried_through_the_decoding():
    raw = {"logits": np.zeros((2000, 2))}

    def decode(outputs):
        return {"scores": 1 / (1 + np.exp(outputs["logits"][:, ::-1] - outputs["logits"]))}

    # Two logits move by 0.04 each: apart from one another in half of the images, which then are 0.02 nearer to 0 or 1.
    steps = carried_steps(decode, raw, {"logits": 0.04}, {"scores": (1 / 256, 0)})["scores"]
    assert steps == pytest.approx(0.02 * 0.5 * 256, rel=0.1)
    assert carried_steps(decode, raw, {"logits": 1e-6}, {"scores": (1 / 256, 0)}) == {"scores": 1.0}
    assert carried_steps(decode, raw, {}, {"scores": None}) == {}


def test_the_gate_counts_steps_of_the_raw_output():
    check_parity(figures(0.1, 2.9), True, "the file", {"scores": 2.0})
    with pytest.raises(ExportError, match=r"3.10 steps.*allowed 3.00"):
        check_parity(figures(0.1, 3.1), True, "the file", {"scores": 2.0})


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_batches_are_filled_up_and_cut_again(count):
    sizes = set()

    def double(batch):
        sizes.add(len(batch))
        return {"a": batch * 2}

    images = np.arange(count * 2.0).reshape(count, 2)
    np.testing.assert_array_equal(in_batches(double, images, size=4)["a"], images * 2)
    assert sizes == {4}


def test_indices_are_equal_or_not():
    file, model = ({"classes": np.float32(values)} for values in ([[0, 4, 2, 2]], [[0, 1, 2, 2]]))
    found = compare(file, model, {"classes": None}, ["classes"])
    assert found["classes"] == {"max": 1, "mean": 0.25, "p99": pytest.approx(0.97), "lsb": None}
    with pytest.raises(ExportError, match='25.00 % of "classes", allowed 0.10 %'):
        check_parity(found, False, "the file", indices=["classes"])
    # Of the integer file as much as three of its steps would change.
    check_parity(found, True, "the file", {"classes": 0.09}, indices=["classes"])
    with pytest.raises(ExportError, match=r"allowed 24\.00 %"):
        check_parity(found, True, "the file", {"classes": 0.08}, indices=["classes"])
    check_parity(found, True, "the file", exact=False, indices=["classes"])


def test_indices_that_a_step_changes():
    raw = {"logits": np.float32([[[0.0, 0.001], [0.0, 5.0]]] * 500)}
    share = carried_steps(
        lambda outputs: {"classes": outputs["logits"].argmax(axis=-1)}, raw, {"logits": 0.04}, {}, ["classes"]
    )
    # Half of the pixels are undecided, of which a step down and a step up, a quarter, change sides.
    assert share["classes"] == pytest.approx(0.125, abs=0.03)
