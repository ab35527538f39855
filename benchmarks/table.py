"""One row for each figure of ours beside a peer's, as a table or as JSON."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from turns import processor


def row(
    case: str, ours: float, peer: float | None, unit: str, bound: float, side: str, *, ratio: float | None = None
) -> dict:
    """Two figures and whether their ratio is where it should be.

    Args:
        case: what was measured.
        ours: our figure.
        peer: the peer's, in the same run; None where it cannot do it at all, which ours then holds against.
        unit: of both.
        bound: of ours / peer.
        side: "most" or "least": which side of the bound is right.
        ratio: where it was measured better than by ours / peer, such as in pairs.
    """
    if ratio is None and peer is not None:
        ratio = ours / peer
    return {
        "case": case,
        "ours": round(float(ours), 4),
        "peer": None if peer is None else round(float(peer), 4),
        "unit": unit,
        "ratio": None if ratio is None else round(float(ratio), 4),
        "target": f"at {side} {bound:.3f}",
        "holds": ratio is None or bool(ratio >= bound if side == "least" else ratio <= bound),
    }


def compare(case: str, ours: np.ndarray, peer: np.ndarray, bound: float, unit: str = "ms") -> dict:
    """A row of two series that took turns; the ratio is the median of theirs, and shall be at most so much."""
    ratio = float(np.median(ours / peer))
    return row(case, float(np.median(ours)), float(np.median(peer)), unit, bound, "most", ratio=ratio)


def keep(path: Path, measured: Mapping[str, list[dict]], effort: Mapping[str, Any], packages: Sequence[str]) -> None:
    """Put what was measured in place of what stood in a file.

    Args:
        path: of the JSON file.
        measured: part of the benchmark -> its rows; other parts stay as they are.
        effort: how much was measured.
        packages: whose versions are noted, where they are there.
    """
    results = json.loads(path.read_text()) if path.exists() else {}
    versions = {name: version(name) for name in packages if importlib.util.find_spec(name.replace("-", "_"))}
    for part, rows in measured.items():
        results[part] = {"rows": rows, "effort": dict(effort), "processor": processor(), "packages": versions}
    path.write_text(json.dumps(results, indent=1) + "\n")


def show(rows: list[dict], *, title: str, ours: str, peer: str, as_json: bool) -> None:
    """Print them.

    Args:
        rows: of `row`.
        title: of the table.
        ours: what our figures belong to.
        peer: what the peer's belong to.
        as_json: print {"rows": rows} and nothing else.
    """
    if as_json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    table = Table("case", ours, peer, "unit", "ratio", "target", "holds", title=title)
    for entry in rows:
        mine, other, ratio = ("-" if entry[key] is None else f"{entry[key]:.3f}" for key in ("ours", "peer", "ratio"))
        table.add_row(entry["case"], mine, other, entry["unit"], ratio, entry["target"], str(entry["holds"]))
    Console(width=120).print(table)
