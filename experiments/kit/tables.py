"""A summary as tables: on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.kit.evaluation import place
from stl_programs import costs
from stl_programs.costs import Bill
from stl_programs.display import clean

WORDS = {"success_rate": "success rate", "score": "score"}
COSTS = "What the run cost: once, and for inference (every evaluation above); models with open and with closed weights."
_TEXT = ("row", "split", "missing")


def head(summary: dict[str, Any]) -> tuple[str, ...]:
    """The columns of `lines`."""
    differences = [f"minus {name}" for name in summary["baselines"]]
    return ("row", "split", *_labels(summary), *WORDS.values(), *differences, "failed", "missing", "states expanded",
            "states judged", "model calls", "prompt + completion tokens", "seconds", "dollars")


def lines(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's cells as text, a tuple a row, in the order of `head`."""
    return [tuple(map(clean, _line(row, summary))) for row in summary["rows"]]


def _labels(summary: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for row in summary["rows"] for name in row["setting"]))


def _line(row: dict[str, Any], summary: dict[str, Any]) -> tuple[str, ...]:
    per, missing = row["per_task"], row["missing"]
    calls_model = per["calls"] > 0
    dollars = "unknown" if row["dollars"] is None else f"{row['dollars']:.4g}"
    return (
        row["row"], row["split"], *(str(row["setting"].get(name, "")) for name in _labels(summary)),
        *(_mean(row[measure]) for measure in WORDS),
        *(_difference(row, name, summary["measure"]) for name in summary["baselines"]), str(row["failures"]),
        f"{missing['parse_failures']:.0f} unparsed, {missing['out_of_range']:.0f} out of range" if calls_model else "",
        f"{per['states_expanded']:.1f}", f"{per['states_judged']:.1f}", f"{per['calls']:.1f}",
        f"{per['prompt_tokens']:.0f} + {per['completion_tokens']:.0f}", f"{row['model_seconds']:.1f}",
        dollars if calls_model else "")


def _mean(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _difference(row: dict[str, Any], baseline: str, measure: str) -> str:
    if baseline not in row["minus"]:
        return ""
    found = row["minus"][baseline][measure]
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}], p = {found['p']:.2g}"


def caption(summary: dict[str, Any]) -> str:
    """What the numbers are of."""
    first = summary["rows"][0]
    chosen = f"{summary['chosen']} was chosen on {summary['chosen_on']}. " if summary["chosen_on"] else ""
    notes = f"{summary['notes']} " if summary["notes"] else ""
    rolled = ", ".join(f"{one['n']} for {one['row']} ({one['failed']} failed)" for one in summary.get("rollouts", []))
    rollouts = f"Rollouts: {rolled}. " if rolled else ""
    return (
        f"Means over n = {first['n']} tasks and {len(first['seeds'])} evaluation seed(s), with 95 % intervals; a "
        f"failed task counts 0. Differences are of the {WORDS[summary['measure']]}. Trial: {summary['trial']}. "
        f"Training: {summary['information']}. {rollouts}{chosen}Policy: {first['policy']}, unless a "
        f"row says otherwise. {notes}States, calls and tokens are per task; seconds are model seconds per evaluation; "
        f"missing counts are per evaluation. {summary['date']}.")


def panels(summary: dict[str, Any]) -> list[str]:
    """Every split and setting as a label, in order of appearance; those that only served to choose come last."""
    shown = dict.fromkeys(place(row["split"], row["setting"])
                          for last in (False, True) for row in summary["rows"]
                          if (row["split"] == summary["chosen_on"]) == last)
    return list(shown)


def pivot(summary: dict[str, Any], only: Sequence[str] = ()) -> str:
    """A line per row name (of `only`), a column per split and setting; last, the differences in the first of them."""
    measure, columns = summary["measure"], panels(summary)
    names = dict.fromkeys(row["row"] for row in summary["rows"] if not only or row["row"] in only)
    differences = summary["baselines"]
    table = _rows([[WORDS[measure], *columns, *(f"{columns[0]}, minus {name}" for name in differences)]])
    for name in names:
        cells = {place(row["split"], row["setting"]): row for row in summary["rows"] if row["row"] == name}
        first = cells.get(columns[0])
        table += _rows([[
            f"**{name}**" if name == summary["chosen"] else name,
            *(_mean(cells[column][measure]) if column in cells else "" for column in columns),
            *(_difference(first, other, measure) if first else "" for other in differences)]], rule=False)
    return "\n".join(table)


def markdown(summary: dict[str, Any]) -> str:
    """Caption, pivot, every row, and what the run cost."""
    parts = [caption(summary), "", pivot(summary), "", *_rows([head(summary), *lines(summary)]), ""]
    if bills := cost_rows(summary):
        parts += [COSTS, "", costs.markdown(bills)]
    return "\n".join(parts)


def _rows(table: Sequence[Sequence[str]], rule: bool = True) -> list[str]:
    """Lines of a Markdown table; with `rule`, the first one is its head."""
    found = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in table]
    return [found[0], "|" + " --- |" * len(table[0]), *found[1:]] if rule else found


def cost_rows(summary: dict[str, Any]) -> list[Bill]:
    """The run's costs, one-time against inference and open against closed weights, with their sum."""
    bills = [Bill(**row) for row in summary["costs"]]
    parts = costs.total(bills, by=("one_time", "phase", "open"))
    return [*parts, *costs.total(parts)] if bills else []


def show(summary: dict[str, Any], run_dir: Path, following: Sequence[str] = ()) -> None:
    """The table, where everything is, and `following`: lines that say what to type next."""
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(title=escape(clean(summary["title"])), caption=escape(clean(caption(summary))))
    for name in head(summary):
        table.add_column(escape(clean(name)), justify="left" if name in _TEXT else "right")
    for line in lines(summary):
        table.add_row(*map(Text, line), style="bold" if line[0] == summary["chosen"] else None)
    console.print(table)
    if bills := cost_rows(summary):
        console.print(costs.table(bills, title=COSTS))
    console.print(f"{summary['seconds']:.0f} s in all. Written to {run_dir}: summary.json, table.md, figure.png.",
                  highlight=False, markup=False)
    for text in following:
        console.print(text, highlight=False, markup=False)
