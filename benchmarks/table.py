"""One row for each figure of ours beside a peer's, as a table or as JSON."""

import json

from rich.console import Console
from rich.table import Table


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
