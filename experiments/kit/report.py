"""Tables, pictures and summary.json of an experiment; docs/summary.md documents the schema."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.kit.evaluation import Cell
from experiments.kit.statistics import mean_interval, paired_difference
from stl_programs import costs
from stl_programs.costs import Bill

SCHEMA = 1
INTERVALS = {"95% interval": "percentile bootstrap over puzzles and seeds, 1,000,000 draws",
             "difference": "paired: one resampled set of puzzles and seeds serves both sides"}


def summarize(cells: Sequence[Cell], *, settings: dict[str, Any], information: str, chosen: str, baseline: str,
              split_source: str, seconds: float, stl_seeds: Sequence[int],
              bills: Sequence[Bill] = ()) -> dict[str, Any]:
    """Everything that a table shows, with every per-puzzle, per-seed outcome behind it. JSON-ready."""
    return {
        "schema": SCHEMA, "date": time.strftime("%Y-%m-%d"), "seconds": round(seconds, 1),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "settings": settings, "information": information, "after_stl": chosen, "baseline": baseline,
        "splits": split_source, "stl_seeds": list(stl_seeds), "trial": "first and only; the program's own answer",
        "intervals": INTERVALS, "costs": [bill.to_dict() for bill in bills],
        "rows": [row_summary(cell, cells, baseline) for cell in cells]}


def row_summary(cell: Cell, cells: Sequence[Cell], baseline: str) -> dict[str, Any]:
    solved = cell.solved
    row = cell.to_dict() | {
        "interval": mean_interval(solved).to_dict(),
        "per_puzzle": {name: round(cell.total(name) / solved.shape[1], 3)
                       for name in ("states_expanded", "states_judged", "calls", "samples", "prompt_tokens",
                                    "completion_tokens")},
        "model_seconds": round(cell.model_seconds, 2), "dollars": cell.dollars,
        "missing": {name: cell.total(name) for name in ("parse_failures", "out_of_range")}}
    for name in (baseline, f"{baseline}, 8 samples"):
        other = next((c for c in cells if (c.row, c.split, c.beam) == (name, cell.split, cell.beam)), None)
        if other is not None and other is not cell:
            row[f"minus {name}"] = paired_difference(*paired(solved, other.solved)).to_dict()
    return row


def paired(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the side with fewer seeds (a baseline has one model, ours one per STL seed) so that seeds pair up."""
    seeds = max(len(ours), len(theirs))
    return np.resize(ours, (seeds, ours.shape[1])), np.resize(theirs, (seeds, theirs.shape[1]))


def write(summary: dict[str, Any], run_dir: Path) -> list[Path]:
    """summary.json, table.md and figure.png in `run_dir`; their paths."""
    run_dir.mkdir(parents=True, exist_ok=True)
    files = [run_dir / "summary.json", run_dir / "table.md", run_dir / "figure.png"]
    partial = files[0].with_suffix(".partial")
    partial.write_text(_json(summary), encoding="utf-8")
    partial.replace(files[0])
    files[1].write_text(markdown(summary), encoding="utf-8")
    figure(summary, files[2])
    return files


def quiet_console() -> Console:
    """A console that prints nothing, for workers whose progress the parent shows."""
    return Console(quiet=True)


def _json(summary: dict[str, Any]) -> str:
    """Indented down to the outcomes, which take a line a seed."""
    rows = [{**row, "outcomes": f"@{i}@"} for i, row in enumerate(summary["rows"])]
    text = json.dumps({**summary, "rows": rows}, indent=1) + "\n"
    for i, row in enumerate(summary["rows"]):
        seeds = ",\n".join(json.dumps(per_seed, separators=(",", ":")) for per_seed in row["outcomes"])
        text = text.replace(f'"@{i}@"', f"[\n{seeds}]")
    return text


HEAD = ("row", "split", "beam", "solved", "95 % interval", "minus V0", "failed", "missing", "states expanded",
        "model calls", "tokens", "seconds", "dollars")


def lines(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's cells as text, a tuple a row, in the order of `HEAD`."""
    return [_line(row, summary) for row in summary["rows"]]


def _line(row: dict[str, Any], summary: dict[str, Any]) -> tuple[str, ...]:
    per, interval = row["per_puzzle"], row["interval"]
    difference = row.get(f"minus {summary['baseline']}")
    dollars = "unknown" if row["dollars"] is None else f"{row['dollars']:.4g}"
    calls_model = per["calls"] > 0
    return (row["row"], row["split"], str(row["beam"]), f"{row['solved']:.3f}",
            f"{interval['low']:.3f} to {interval['high']:.3f}",
            "" if difference is None else
            f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]",
            str(row["failures"]),
            f"{row['missing']['parse_failures']:.0f} unparsed, {row['missing']['out_of_range']:.0f} out of range"
            if calls_model else "",
            f"{per['states_expanded']:.1f}", f"{per['calls']:.1f}",
            f"{per['prompt_tokens'] + per['completion_tokens']:.0f}", f"{row['model_seconds']:.1f}",
            dollars if calls_model else "")


def caption(summary: dict[str, Any]) -> str:
    first = summary["rows"][0]
    return (
        f"Solved, of n = {first['n']} puzzles and {len(first['seeds'])} evaluation seed(s); STL seeds: "
        f"{summary['stl_seeds']}. The answer scored is the program's own, first trial. Training setting: "
        f"{summary['information']}. \"After STL\" is {summary['after_stl']}, chosen on validation puzzles. "
        f"Policy: {first['policy']}{' (calls no model)' if first['policy'] == 'LegalMoves' else ''}, unless a row says "
        "otherwise. States, calls and tokens are per puzzle; seconds are model seconds per evaluation; missing counts "
        f"are per evaluation. Splits: {summary['splits']}. {summary['date']}.")


def pivot(summary: dict[str, Any], only: Sequence[str] = ()) -> str:
    """A line per row name (of `only`), a column per split and beam: solved [interval]; then the gain on V0 x 8."""
    panels = sorted({(row["split"], row["beam"]) for row in summary["rows"]},
                    key=lambda panel: (panel[0] != "test", panel[0] == "validation", -panel[1]))
    names = list(dict.fromkeys(row["row"] for row in summary["rows"] if not only or row["row"] in only))
    strong = f"minus {summary['baseline']}, 8 samples"
    columns = [f"{split}, beam {beam}" for split, beam in panels]
    head = ["solved", *columns, f"{columns[0]}, {strong}"]
    table = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name in names:
        cells = {(row["split"], row["beam"]): row for row in summary["rows"] if row["row"] == name}
        line = [f"**{name}**" if name == summary["after_stl"] else name]
        for panel in panels:
            row = cells.get(panel)
            line.append("" if row is None else f"{row['solved']:.3f} [{row['interval']['low']:.2f}, "
                                               f"{row['interval']['high']:.2f}]")
        difference = cells[panels[0]].get(strong) if panels[0] in cells else None
        line.append("" if difference is None else f"{difference['mean']:+.3f} [{difference['low']:+.3f}, "
                                                  f"{difference['high']:+.3f}], p = {difference['p']:.2g}")
        table.append("| " + " | ".join(line) + " |")
    return "\n".join(table)


def markdown(summary: dict[str, Any]) -> str:
    rows = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    rows += ["| " + " | ".join(line) + " |" for line in lines(summary)]
    parts = [caption(summary), "", pivot(summary), "", *rows, ""]
    if bills := cost_rows(summary):
        parts += [COSTS, "", costs.markdown(bills)]
    return "\n".join(parts)


COSTS = "What the run cost: once, and for inference (every evaluation above); models with open and with closed weights."


def cost_rows(summary: dict[str, Any]) -> list[Bill]:
    """The run's costs, one-time against inference and open against closed weights, with their sum."""
    bills = [Bill(**row) for row in summary.get("costs", ())]
    parts = costs.total(bills, by=("one_time", "phase", "open"))
    return [*parts, *costs.total(parts)] if bills else []


def show(summary: dict[str, Any], run_dir: Path, mlflow_store: str | None) -> None:
    """The table, where everything is, and what to type next."""
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(title=f"Game of 24 - training: {summary['information']}", caption=caption(summary))
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("row", "split", "missing") else "right")
    for line in lines(summary):
        bold = "bold" if line[0] == summary["after_stl"] else None
        table.add_row(*line, style=bold)
    console.print(table)
    if bills := cost_rows(summary):
        console.print(costs.table(bills, title=COSTS))
    console.print(f"{summary['seconds']:.0f} s in all. Written to {run_dir}: summary.json, table.md, figure.png, "
                  "rollouts, data and adapters of every iteration.", highlight=False)
    console.print("Next:", highlight=False)
    if mlflow_store:
        console.print(f"  make ui                                  runs side by side in MLflow ({mlflow_store})",
                      highlight=False)
    console.print("  docs/tutorial.md                         compose a search and tune its value in Python\n"
                  "  python -m experiments.game24 --value hosted_vllm/NAME --weights DIR   the same with your model\n"
                  "  make study                               every setting, with seeds and ablations",
                  highlight=False)


def figure(summary: dict[str, Any], path: Path) -> None:
    """Solved rate by row with 95 % intervals, one panel per split and beam."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(row["split"], row["beam"]) for row in summary["rows"] if row["split"] != "validation"},
                    key=lambda panel: (panel[0] != "test", -panel[1]))
    fig, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False)
    for axis, (split, beam) in zip(axes[0], panels, strict=True):
        rows = [r for r in summary["rows"] if (r["split"], r["beam"]) == (split, beam)]
        names = [r["row"] for r in rows]
        means = np.array([r["solved"] for r in rows])
        errors = np.abs(np.array([[r["interval"]["low"], r["interval"]["high"]] for r in rows]).T - means)
        colors = ["#1f77b4" if r["row"] == summary["after_stl"] else "#b8c4d0" for r in rows]
        axis.barh(names, means, xerr=errors, color=colors, ecolor="#444", capsize=2)
        for place, mean in enumerate(means):
            axis.text(0.015, place, f"{mean:.2f}", va="center", fontsize=8)
        axis.set(xlim=(0, 1.02), title=f"{split}, beam {beam}", xlabel="solved")
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"Game of 24, value model tuned by its own lookahead ({summary['information']})", fontsize=10)
    fig.tight_layout()
    fig.savefig(path, dpi=130)
    plt.close(fig)
