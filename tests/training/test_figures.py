"""Pictures for TensorBoard: where things stand, and that odd cases have a picture too."""

import numpy as np
import pytest
from PIL import Image

from kerasvision.training.figures import error_figure, picture_grid, recall_figure


def test_pictures_of_any_size_stand_in_rows_and_groups():
    colours = ["red", "lime", "blue", "yellow", "cyan"]
    pictures = [Image.new("RGB", (40, 20 + 5 * index), colour) for index, colour in enumerate(colours)]
    grid = picture_grid(pictures, [str(index) for index in range(5)], columns=4, group=2)
    corners = []
    for picture in pictures:
        rows, columns = np.nonzero((grid == np.asarray(picture)[0, 0]).all(axis=-1))
        assert len(rows) >= picture.width * picture.height
        corners.append((columns.min(), rows.min()))
    (x0, y0), (x1, y1), (x2, _), (_, _), (x4, y4) = corners
    assert x0 == x4 and y0 == y1 and y4 > y0 + 35
    assert 40 < x1 - x0 < x2 - x1
    assert picture_grid(pictures[:1]).shape[1] < grid.shape[1] / 2


def facts(classes, point=None):
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    return {
        "working_point": point,
        "classes": classes,
        "errors": {
            kind: {"count": index, "cost": None if not classes else index / 50} for index, kind in enumerate(kinds)
        },
    }


def known(recall, objects=10):
    curve = {"recall": recall, "precision": [1.0 for _ in recall], "score": [0.5 for _ in recall]}
    best = {"score": 0.5, "f1": 0.5, "precision": 1.0, "recall": recall[-1]} if recall else None
    return {"objects": objects, "AP50": 0.5 if objects else None, "best": best, "curve": curve}


@pytest.mark.parametrize(
    "classes",
    [
        {},
        {"never": known([], 0)},
        {"missed": known([])},
        {f"class {index}": known([0.1, 0.5 + index / 50]) for index in range(25)},
    ],
)
def test_curves_and_errors_of_odd_sets(classes):
    point = {"score": 0.0101, "f1": 0.5, "precision": 0.5, "recall": 0.5} if len(classes) > 1 else None
    for draw in (recall_figure, error_figure):
        picture = draw(facts(classes, point), "Epoch 3")
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and min(picture.shape[:2]) > 300
        assert picture.std() > 5
