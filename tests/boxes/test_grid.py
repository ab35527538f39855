"""Anchors on grids: the published numbers of boxes, sizes and places, and the order of a head's outputs."""

import numpy as np
import pytest

from kerasvision.boxes import formats, grid


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (grid.ssd300_grid(), 8732),
        (grid.ssd512_grid(), 24_564),
        (grid.retinanet_grid((800, 1344)), 201_600),
        (grid.yolov3_grid((416, 416)), 10_647),
        (grid.center_grid((640, 640)), 8400),
        (grid.ssdlite_grid((320, 320), grid.map_shapes((320, 320), (16, 32, 64, 128, 256, 512))), 3234),
        (grid.pyramid_grid((800, 1344)), 3 * (200 * 336 + 100 * 168 + 50 * 84 + 25 * 42 + 13 * 21)),
    ],
)
def test_published_counts(made, count):
    assert len(made) == count
    assert made.boxes.shape == (count, 4) and made.strides.shape == (count,)
    assert made.boxes.dtype == made.strides.dtype == made.centers.dtype == np.float32
    assert (formats.box_areas(made.boxes) > 0).all()


def sizes_of(made, rows):
    return formats.to_center(made.boxes[rows])[:, 2:]


def test_ssd300_sizes_are_those_of_the_paper():
    made = grid.ssd300_grid()
    root = np.sqrt(2)
    expected = [[30, 30], [np.sqrt(30 * 60)] * 2, [30 * root, 30 / root], [30 / root, 30 * root]]
    assert np.allclose(sorted(sizes_of(made, slice(0, 4)).tolist()), sorted(np.array(expected).tolist()), atol=1e-4)
    # The second level begins with a square of 60 pixels, the last box level has one of 264.
    assert np.allclose(sizes_of(made, slice(5776, 5777)), 60)
    assert np.allclose(sizes_of(made, slice(8728, 8729)), 264) and np.allclose(made.centers[-4:], 150)
    assert np.allclose(made.centers[4], [12, 4])


def test_ssd512_begins_with_the_scale_of_its_finest_level():
    made = grid.ssd512_grid()
    assert np.allclose(sizes_of(made, slice(0, 1)), 0.07 * 512, atol=1e-4)
    assert np.allclose(sizes_of(made, slice(24_560, 24_561)), 0.9 * 512, atol=1e-3)


def test_ssdlite_fills_an_image_that_is_no_multiple_of_the_stride():
    made = grid.ssdlite_grid((60, 90), [(2, 4), (1, 1)], (0.3, 0.6, 0.8), (2,))
    root = np.sqrt(2)
    expected = [[18, 18], [60 * np.sqrt(0.18)] * 2, [18 * root, 18 / root], [18 / root, 18 * root]]
    assert np.allclose(sizes_of(made, slice(0, 4)), expected, atol=1e-4)
    assert np.allclose(made.centers[: 2 * 4 * 4 : 4], [(x, y) for y in (15, 45) for x in (11.25, 33.75, 56.25, 78.75)])
    assert np.allclose(made.centers[-4:], [45, 30]) and np.allclose(sizes_of(made, slice(-4, -3)), 36)
    assert np.allclose(made.strides[0], np.sqrt(30 * 22.5))


def test_scales_of_ssdlite_are_even_steps():
    made = grid.ssdlite_grid((320, 320), grid.map_shapes((320, 320), (16, 32, 64, 128, 256, 512)))
    first = 6 * np.cumsum([0, 400, 100, 25, 9, 4])
    assert np.allclose(sizes_of(made, first), 320 * np.array([[0.2], [0.35], [0.5], [0.65], [0.8], [0.95]]), atol=1e-3)


def test_retinanet_has_nine_sizes_a_cell():
    made = grid.retinanet_grid((64, 64))
    sizes = sizes_of(made, slice(0, 9))
    areas = np.sort(sizes.prod(axis=1))
    assert np.allclose(areas, np.repeat((32 * 2.0 ** (np.arange(3) / 3)) ** 2, 3), rtol=1e-5)
    assert np.allclose(np.sort((sizes[:, 1] / sizes[:, 0])[:3]), [0.5, 1, 2], rtol=1e-5)
    assert np.allclose(made.centers[:9], 4, atol=1e-5) and (made.strides[:9] == 8).all()


def test_order_is_level_row_column_anchor():
    made = grid.make_grid([(2, 3), (1, 1)], [10, 30], [[(4, 4), (8, 2)], [(20, 20)]])
    # As a head's output [H, W, K * F] lies in memory when it is reshaped to [H * W * K, F].
    rows = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    assert np.allclose(made.centers[rows[1, 2]], [[25, 15], [25, 15]])
    assert np.allclose(made.boxes[rows[0, 1, 1]], [11, 4, 19, 6])
    assert np.allclose(made.boxes[-1], [5, 5, 25, 25]) and made.strides[-1] == 30


def test_cells_cover_an_image_that_is_no_multiple_of_the_stride():
    made = grid.center_grid((50, 70), (16,))
    assert len(made) == 4 * 5
    assert made.boxes[:, 2].max() >= 70 and made.boxes[:, 3].max() >= 50


def test_an_image_smaller_than_the_largest_stride_has_one_cell_there():
    assert (grid.retinanet_grid((40, 40)).strides == 128).sum() == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid.make_grid([(1, 1)], [8, 16], [[(1, 1)]]), "of every level, got 1, 2 and 1"),
        (lambda: grid.make_grid([(1, 1)], [8], [[(0, 1)]]), "above 0"),
        (lambda: grid.ssd_sizes(300, (0.1, 0.2), ((2,), (2,))), "Expected 3 scales for 2 levels, got 2"),
    ],
)
def test_wrong_levels(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_places_count_the_anchors_around_each_centre():
    assert grid.ssd300_grid().places == [(38 * 38, 4), (19 * 19 + 10 * 10 + 5 * 5, 6), (3 * 3 + 1, 4)]
    assert grid.retinanet_grid((480, 640)).places == [(60 * 80 + 30 * 40 + 15 * 20 + 8 * 10 + 4 * 5, 9)]
    assert grid.Grid(np.float32([[0, 0, 9, 9], [1, 1, 8, 8], [2, 0, 9, 9]]), np.float32([4, 4, 4])).places == [
        (1, 2),
        (1, 1),
    ]
