import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasvision.augment import TRANSFORMS
from kerasvision.augment.corruptions import CORRUPTIONS

TOOL = Path(__file__).parents[2] / "tools" / "transforms_page.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("transforms_page", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(tool):
    """If not: `make transforms`."""
    assert tool.PAGE.read_text() == tool.page()


def test_every_transform_has_a_section_and_a_picture(tool):
    headings = [line[4:] for line in tool.page().splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted([*TRANSFORMS, *CORRUPTIONS])
    pictures = {file.stem: file.stat().st_size for file in tool.PICTURES.iterdir()}
    assert set(pictures) == {*TRANSFORMS, *(f"corruption_{name}" for name in CORRUPTIONS)}
    assert max(pictures.values()) <= tool.MOST_BYTES and sum(pictures.values()) < 2_000_000


def test_every_parameter_is_described(tool):
    missing = [line for line in tool.page().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not missing


def test_scene_holds_what_is_drawn(tool):
    example = tool.scene(3)
    assert example["image"].shape == (tool.SIDE, tool.SIDE, 3) and example["image"].dtype == np.uint8
    assert (example["boxes"][:, 2:] - example["boxes"][:, :2] > 8).all()
    person = example["keypoints"][2]
    assert (person[:, 2] == 2).all() and (example["keypoints"][:2] == 0).all()
    left, top, right, bottom = example["boxes"][2]
    assert ((person[:, 0] >= left) & (person[:, 0] <= right) & (person[:, 1] >= top) & (person[:, 1] <= bottom)).all()
    assert len({tool.scene(seed)["image"].tobytes() for seed in range(4)}) == 4


def test_pictures_fit_the_limit(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "PICTURES", tmp_path)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 400, 3), np.uint8))
    tool.write_picture("noise", noise)
    assert (tmp_path / "noise.jpg").stat().st_size <= tool.MOST_BYTES
    assert Image.open(tmp_path / "noise.jpg").size == (400, 160)


def test_a_class_of_an_unknown_module(tool):
    with pytest.raises(ValueError, match="add it under a heading"):
        tool.group_of(Path)
