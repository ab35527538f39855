import json

import pytest

from kerasvision import Preprocessing


def test_round_trip_with_non_default_values():
    given = Preprocessing(
        scale=(1.0, 2.0, 3.0), offset=(0.5,), fit="crop", crop_fraction=0.875, interpolation="bicubic"
    )
    assert Preprocessing.from_config(json.loads(json.dumps(given.get_config()))) == given


def test_uniform():
    assert Preprocessing().uniform
    assert Preprocessing(scale=(0.5, 0.5, 0.5), offset=(1, 1, 1)).uniform
    assert not Preprocessing(scale=(1.0,), offset=(1, 2, 3)).uniform


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fit": "squeeze"}, '"stretch", "crop" or "letterbox"'),
        ({"interpolation": "nearest"}, '"bilinear" or "bicubic"'),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"scale": (0.0,)}, "scale"),
        ({"scale": ()}, "scale"),
    ],
)
def test_wrong_values_say_what_is_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


@pytest.mark.parametrize(
    ("preprocessing", "pixel"),
    [
        (Preprocessing(), 0),
        (Preprocessing(scale=(1 / 128,), offset=(-127 / 128,)), 127),
        (Preprocessing(scale=(1.0,) * 3, offset=(0.0,)), 0),
        (Preprocessing(scale=(1 / 127.5,), offset=(-1.0,)), 128),  # 127.5, rounded
        (Preprocessing(scale=(1 / 255,), offset=(0.5,)), None),  # below 0
        (Preprocessing(scale=(1.0,), offset=(-1.0, -2.0, -3.0)), None),
    ],
)
def test_the_pixel_that_becomes_zero(preprocessing, pixel):
    assert preprocessing.zero_pixel() == pixel
