"""The one face of every benchmark: rows of a figure, its goal and its spread, as a table, as JSON, as an exit status.

A benchmark is a function without arguments that returns rows. A file of benchmarks ends with

    if __name__ == "__main__":
        sys.exit(main({"overhead": overhead, "regret": regret}))
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measured figure.

    `figure` is in `unit`; None where the benchmark failed. `goal` says what it has to be, as text ("at least 0.95");
    None for what only stands beside: another library, a setting. `holds`: whether the goal is met; None without one.
    `spread` says how far the figure varies and over what ("0.94 to 0.97, quartiles of 10"), or why there is none.
    """

    name: str
    figure: float | None
    unit: str = ""
    goal: str | None = None
    holds: bool | None = None
    spread: str = ""


Benchmark = Callable[[], Sequence[Row]]


def at_least(name: str, figure: float, goal: float, unit: str = "", spread: str = "") -> Row:
    """A row whose figure has to reach `goal`."""
    return Row(name, figure, unit, f"at least {goal:g}", bool(figure >= goal), spread)


def at_most(name: str, figure: float, goal: float, unit: str = "", spread: str = "") -> Row:
    """A row whose figure must not exceed `goal`."""
    return Row(name, figure, unit, f"at most {goal:g}", bool(figure <= goal), spread)


def median_and_spread(values: Iterable[float]) -> tuple[float, str]:
    """The median, and the quartiles with the number of values as text. Raises ValueError for no values."""
    found = np.asarray(list(values), dtype=float)
    if not found.size or not np.isfinite(found).all():
        raise ValueError(f"{found.tolist()}: a spread needs finite values, and at least one")
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
    return float(middle), f"{low:.4g} to {high:.4g}, quartiles of {found.size}"


def run(name: str, benchmark: Benchmark) -> list[Row]:
    """The rows of one benchmark. One that raises is a row that does not hold, with the reason."""
    try:
        return list(benchmark())
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return [Row(name, None, goal="to run", holds=False, spread=f"{type(error).__name__}: {lines[0][:300]}")]


def main(benchmarks: Mapping[str, Benchmark], argv: Sequence[str] | None = None) -> int:
    """Run benchmarks, print their rows, and return the exit status: 1 where a goal is missed, else 0."""
    parser = argparse.ArgumentParser(description="Measure figures against their goals.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--only", action="append", metavar="NAME", choices=list(benchmarks),
                        help="run this one; may be given several times")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    options = parser.parse_args(argv)
    console = Console()
    if options.list:
        for name, benchmark in benchmarks.items():
            console.print(f"{name:24} {(benchmark.__doc__ or '').strip().partition(chr(10))[0]}", markup=False)
        return 0
    rows = [row for name in options.only or benchmarks for row in run(name, benchmarks[name])]
    console.print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False) + "\n",
                                encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(rows), encoding="utf-8")
    return int(any(row.holds is False for row in rows))


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| | figure | goal | | spread |", "| --- | ---: | --- | --- | --- |"]
    for row in rows:
        mark = {True: "holds", False: "**missed**", None: ""}[row.holds]
        lines.append(f"| {row.name} | {_shown(row.figure, row.unit)} | {row.goal or ''} | {mark} | {row.spread} |")
    return "\n".join([*lines, ""])


def table(rows: Sequence[Row]) -> Table:
    """Figures against goals."""
    shown = Table(show_edge=False)
    for title in ("", "figure", "goal", "", "spread"):
        shown.add_column(title, justify="right" if title == "figure" else "left", overflow="fold")
    for row in rows:
        mark = {True: "[green]holds[/]", False: "[red]missed[/]", None: ""}[row.holds]
        shown.add_row(row.name, _shown(row.figure, row.unit), row.goal or "", mark, row.spread)
    return shown


def _shown(figure: float | None, unit: str) -> str:
    if figure is None:
        return ""
    number = f"{figure:,.0f}" if abs(figure) >= 1000 and math.isfinite(figure) else f"{figure:.4g}"
    return f"{number} {unit}".strip()
