"""Windows equal to pydicom's, and layouts that bring every voxel to its place and back."""

import itertools

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import apply_windowing

from kerasvision.errors import DataError
from kerasvision.medical import Volume, Window, percentile_window
from kerasvision.medical.volume import Layout


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (35.5, 80), (0, 2)])
def test_windows_are_those_of_the_standard(function, center, width):
    values = np.arange(-2048, 2048, dtype=np.int16)
    described = pydicom.Dataset()
    described.PhotometricInterpretation, described.BitsStored = "MONOCHROME2", 16
    described.PixelRepresentation, described.VOILUTFunction = 1, function
    described.WindowCenter, described.WindowWidth = center, width
    with np.errstate(over="ignore"):
        shown = (apply_windowing(values, described) + 32768) / 65535 * 255
    found = Window(center, width, function.lower())(values)
    assert found.dtype == np.uint8 and (np.diff(found.astype(int)) >= 0).all()
    np.testing.assert_allclose(found, shown, atol=0.51)


def test_odd_windows():
    threshold = Window(100, 1)
    np.testing.assert_array_equal(threshold(np.float32([99, 99.4, 99.6, 200])), [0, 0, 255, 255])
    values = np.float32([np.nan, -np.inf, np.inf, 40])
    for function in ("linear", "linear_exact", "sigmoid"):
        shown = Window(40, 4, function)(values)
        assert shown[:3].tolist() == [0, 0, 255] and 120 < shown[3] < 175
    for center, width, function in ((40, 0.5, "linear"), (0, 0, "sigmoid"), (np.nan, 4, "linear"), (1, -4, "linear")):
        with pytest.raises(ValueError, match="A window has a center and a width"):
            Window(center, width, function)


def test_percentiles():
    values = np.random.default_rng(0).permutation(np.arange(10001.0)).reshape(73, 137)
    values[0, :3] = [np.nan, np.inf, -np.inf]
    window = percentile_window(values, 1, 95)
    low, high = window.center - window.width / 2, window.center + window.width / 2
    assert abs(low - 100) < 2 and abs(high - 9500) < 2
    assert window(np.array([low, high, window.center])).tolist() == [0, 255, 128]
    assert percentile_window(np.full((3, 3), 7))(np.array([6, 8])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="0 <= low < high"):
        percentile_window(values, 90, 10)
    with pytest.raises(ValueError, match="no finite value"):
        percentile_window(np.array([np.nan]))


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from([("mm", 1), ("meter", 1000), ("micron", 0.001)]),
    st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_every_voxel_keeps_its_place(axes, flipped, shape, unit, seed):
    random = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3] = random.normal(0, 2, (3, 4))
    layout = Layout(shape, tuple(axes), flipped, affine, unit[0])
    stored = random.permutation(int(np.prod(shape))).reshape(shape)
    values = layout.read(stored)
    np.testing.assert_array_equal(layout.write(values), stored)
    volume = Volume(values, layout)
    # The same number is at the same place in space, asked for through the file's indices and through the volume's.
    for index in itertools.islice(np.ndindex(*shape), 9):
        place = affine[:3] @ [*index, 1]
        own = np.argwhere(values == stored[index])[0]
        np.testing.assert_allclose(volume.affine[:3] @ [*own, 1], place * unit[1], atol=1e-9 * unit[1])
    steps = np.linalg.norm(affine[:3, :3], axis=0) * unit[1]
    np.testing.assert_allclose(volume.spacing, steps[list(axes)])
    assert volume.voxel_ml == pytest.approx(abs(np.linalg.det(affine[:3, :3])) * unit[1] ** 3 / 1000)


def test_images_of_a_volume():
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4) * 10
    volume = Volume(values, Layout((4, 3, 2)), "a", Window(100, 101))
    np.testing.assert_array_equal(volume.images(), Window(100, 101)(values))
    np.testing.assert_array_equal(volume.images(Window(50, 60)), Window(50, 60)(values))
    inverted = Volume(values, Layout((4, 3, 2)), "a", Window(100, 101), inverted=True)
    np.testing.assert_array_equal(inverted.images(), 255 - volume.images())
    without = Volume(values, Layout((4, 3, 2)), "a")
    np.testing.assert_array_equal(without.images(), percentile_window(values)(values))
    assert len(volume) == 2 and "2 slices of 3x4, no spacing" in repr(volume) and volume.spacing is None
    with pytest.raises(DataError, match=r"a does not say how far apart.*spacing="):
        assert volume.voxel_ml
    with pytest.raises(ValueError, match=r"\[slices, H, W\], got \[3, 4\]"):
        Volume(values[0], Layout((4, 3)))
