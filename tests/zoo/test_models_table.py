import importlib.util
from pathlib import Path

import pytest

from kerasvision.registry import get_entry
from kerasvision.zoo import own_backbones

TOOL = Path(__file__).parents[2] / "tools" / "models_table.py"
FIGURES = {
    "input": [96, 96, 3],
    "parameters": 3_500_000,
    "macs": 310_000_000,
    "float": {"bytes": 14_000_000, "ms": 9.06},
    "int8": {"bytes": 4_000_000, "ms": 4.04},
    "threads": 1,
    "processor": "2 x Fast",
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("models_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_up_to_date(tool):
    """If not: `make models`."""
    readme = tool.README.read_text()
    assert readme == tool.replaced(readme, tool.section(tool.read_results()))


def test_figures_are_those_of_registered_nets(tool):
    for name, figures in tool.read_results().items():
        trained = get_entry(name)[0].weights.get("imagenet")
        assert trained is None or figures["parameters"] == trained.parameters


def test_every_net_has_a_row(tool):
    text = tool.section({"mobilenet_v2": FIGURES})
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == own_backbones()
    measured = "96x96 | 3.50 M | 0.31 G | 14.0 MB, 9.1 ms | 4.0 MB, 4.0 ms"
    assert f"| `mobilenet_v2` | {measured} | downloaded by Keras | Apache-2.0 |" in text
    assert "1 thread of 2 x Fast" in text
    assert "extra `imagenet-lite`" in text


def test_markers_are_needed(tool):
    with pytest.raises(ValueError, match="<!-- models -->"):
        tool.replaced("# README", "table")
