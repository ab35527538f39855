"""Box formats: there and back, for arrays and tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from kerasvision.boxes import formats

number = st.floats(-100, 100, width=32)
box_lists = st.lists(st.tuples(number, number, number, number), min_size=1, max_size=4).map(np.array)


@given(box_lists)
def test_there_and_back(boxes):
    assert np.allclose(formats.from_center(formats.to_center(boxes)), boxes, atol=1e-9)
    assert np.allclose(formats.from_corner_size(formats.to_corner_size(boxes)), boxes, atol=1e-9)


CASES = [
    (formats.to_center, (), [4.5, 7, 5, 10]),
    (formats.to_corner_size, (), [2, 2, 5, 10]),
    (formats.to_relative, ((20, 10),), [0.1, 0.2, 0.6, 0.7]),
    (formats.clip_boxes, ((8, 4),), [2, 2, 4, 8]),
    (formats.box_areas, (), 50),
]


@pytest.mark.parametrize(("function", "arguments", "expected"), CASES)
def test_numbers_by_hand(function, arguments, expected):
    box = np.array([2.0, 2, 7, 12])
    assert np.allclose(function(box, *arguments), expected)
    assert np.allclose(function(ops.convert_to_tensor(box, "float32"), *arguments), expected)


def test_a_box_outside_the_image_is_clipped_to_nothing():
    outside = np.array([[-9.0, 3, -2, 5], [30, 3, 40, 5]])
    assert np.allclose(formats.box_areas(formats.clip_boxes(outside, (20, 20))), 0)


def test_an_inside_out_box_has_no_area():
    assert formats.box_areas(np.array([5.0, 5, 3, 3])) == 0
