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
