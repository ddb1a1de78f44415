"""The README's first program, run as printed on splits that nothing was chosen on, and held against V0 with more draws.

    python -m experiments.game24.readme_program --split-seeds 20261126 20261127 20261128 [--publish experiments/results]

Of the printed lines only the environment is replaced, by a fresh split, and the seed, by an STL seed; it runs in a
folder of its own. Running again goes on after the last finished rollout, training or puzzle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.game24.settings import published_list
from experiments.kit.command import guarded
from experiments.kit.evaluation import Cell, evaluate
from experiments.kit.progress import Bars
from experiments.kit.report import INTERVALS, paired
from experiments.kit.statistics import mean_interval, paired_difference
from stl_programs import GameOf24, SearchProgram
from stl_programs.environments.game24.world import parse_numbers, reachable
from stl_programs.errors import StlError

README = Path(__file__).parents[2] / "README.md"
TUNED_ON = (101, 102)
"""Split seeds whose validation puzzles the embedded model's training settings and the program were chosen on."""
DRAWS = 8
"""Draws per judgement of the untrained value that the compiled one is held against; the compiled one keeps its own."""
ROWS = ("V0", f"V0, {DRAWS} samples", "compiled")


def snippet(readme: str, split_seed: int, stl_seed: int) -> str:
    """The first Python block of `readme`, on a fresh split and with an STL seed. Raises StlError if it has changed."""
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    code = blocks[0] if blocks else ""
    for printed, ours in (("GameOf24()", f"GameOf24(split_seed={split_seed})"),
                          ("SelfTaughtLookahead(", f"SelfTaughtLookahead(seed={stl_seed}, ")):
        if code.count(printed) != 1:
            raise StlError(f"README.md's first Python block has {printed!r} {code.count(printed)} times where it is to "
                           "be replaced once; change experiments/readme_program.py with it")
        code = code.replace(printed, ours)
    return code


def execute(code: str, folder: Path) -> tuple[SearchProgram, SearchProgram, dict[str, Any]]:
    """Run the snippet in `folder`: its program, its compiled program, and what the last adapter's training records."""
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102 (this repository's own code)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-adapters/*/provenance.json")]
    return names["program"], names["compiled"], max(records, key=lambda record: record["iteration"])


def score(run_dir: Path, split_seed: int, stl_seeds: Sequence[int], eval_seeds: Sequence[int],
          bars: Bars) -> tuple[dict[str, Cell], dict[str, Any]]:
    """The rows of one fresh split on its test puzzles, and the settings that the embedded model was tuned with."""
    here, tasks = run_dir / f"split-{split_seed}", GameOf24(split_seed=split_seed).tasks("test")
    cells: dict[str, list[Cell]] = {row: [] for row in ROWS}
    record: dict[str, Any] = {}

    def add(row: str, program: SearchProgram, folder: Path) -> None:
        stage = f"split {split_seed}: {row}"
        cells[row].append(evaluate(program, tasks, row=row, split="test", seeds=eval_seeds, folder=folder,
                                   setting={"beam": program.width},
                                   progress=lambda done, total, detail: bars.show(stage, done, total, detail)))

    for stl_seed in stl_seeds:
        folder = here / f"stl-{stl_seed}"
        bars.show(f"split {split_seed}: the README's program", stl_seeds.index(stl_seed), len(stl_seeds))
        program, compiled, record = execute(snippet(README.read_text(encoding="utf-8"), split_seed, stl_seed), folder)
        add("compiled", compiled, folder / "evaluations")
        if not cells["V0"]:
            more = program.deepcopy()
            more.value.samples = DRAWS
            add("V0", program, here / "evaluations")
            add(ROWS[1], more, here / "evaluations")
    merged = {row: replace(of[0], outcomes=[per_seed for cell in of for per_seed in cell.outcomes])
              for row, of in cells.items()}
    return merged, {name: record[name] for name in ("iteration", "variant", "stl", "settings", "base_sha256")}


def together(splits: Sequence[dict[str, Cell]]) -> dict[str, Cell]:
    """All splits as one: as many puzzles as they have together."""
    return {row: replace(splits[0][row], outcomes=[
        [outcome for cells in splits for outcome in cells[row].outcomes[seed]]
        for seed in range(len(splits[0][row].outcomes))]) for row in ROWS}


def without(cells: dict[str, Cell], puzzles: set[str]) -> dict[str, Cell]:
    """The rows, but for `puzzles`."""
    return {row: replace(cell, outcomes=[[o for o in per_seed if o["task"] not in puzzles]
                                         for per_seed in cell.outcomes]) for row, cell in cells.items()}


def figures(cells: dict[str, Cell]) -> dict[str, Any]:
    """Rates and paired differences of one split or of all together."""
    solved = {row: cell.solved for row, cell in cells.items()}
    puzzles = [outcome["task"] for outcome in cells["V0"].outcomes[0]]
    return {"n": len(puzzles), "distinct puzzles": len({*puzzles}), "rows": {row: {
        "samples": cell.samples, "failures": cell.failures, "interval": mean_interval(solved[row]).to_dict()}
        for row, cell in cells.items()}, "differences": {f"compiled minus {row}": paired_difference(
            *paired(solved["compiled"], solved[row])).to_dict() for row in ROWS[:2]}}


def usual(split: str) -> set[str]:
    """The puzzles of a split of the project's own and, where it is on this disk, of the published list."""
    csv = published_list()
    return {task.text for env in (GameOf24(), *([GameOf24(csv)] if csv else [])) for task in env.tasks(split)}


def chosen_on() -> set[str]:
    """Every puzzle that a setting of this program was chosen on."""
    return usual("validation").union(task.text for seed in TUNED_ON
                                     for task in GameOf24(split_seed=seed).tasks("validation"))


def held_back(puzzles: Sequence[str]) -> dict[str, Any]:
    """How many of `puzzles`, and of the states of two numbers and more that they reach, pre-training never saw."""
    unseen, states = reachable(sorted(usual("test"))), reachable(list(puzzles))
    return {"states": len(states), "puzzles held back": sum(parse_numbers(puzzle) in unseen for puzzle in puzzles),
            "states held back": len(states & unseen)}


def run(run_dir: Path, split_seeds: Sequence[int], stl_seeds: Sequence[int], eval_seeds: Sequence[int]
        ) -> dict[str, Any]:
    """Everything that the table shows, with every outcome; also written to `run_dir`/readme_program.json and .md."""
    if used := sorted({*split_seeds} & {*TUNED_ON}):
        raise ValueError(f"split seeds {used}: settings were chosen on them; a figure needs others than {TUNED_ON}")
    started, run_dir = time.perf_counter(), run_dir.resolve()
    with Bars() as bars:
        found = {seed: score(run_dir, seed, stl_seeds, eval_seeds, bars) for seed in split_seeds}
    first, every = found[split_seeds[0]][0]["compiled"], together([cells for cells, _ in found.values()])
    summary = {
        "date": time.strftime("%Y-%m-%d"), "seconds": round(time.perf_counter() - started, 1),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "program": snippet(README.read_text(encoding="utf-8"), split_seeds[0], stl_seeds[0]),
        "information": first.information, "filter": None, "policy": first.policy, "beam": first.setting["beam"],
        "trial": "first and only; the program's own answer", "intervals": INTERVALS,
        "tuned_on_split_seeds": list(TUNED_ON), "split_seeds": list(split_seeds), "stl_seeds": list(stl_seeds),
        "eval_seeds": list(eval_seeds), "training": found[split_seeds[0]][1],
        "published list": published_list() is not None,
        "together": figures(every), "never chosen on": figures(without(every, chosen_on())),
        "splits": [figures(cells) | {
            "split_seed": seed, "pre-training": held_back(puzzles := [o["task"] for o in cells["V0"].outcomes[0]]),
            "puzzles": puzzles, "solved": {row: cell.solved.astype(int).tolist() for row, cell in cells.items()}}
            for seed, (cells, _) in found.items()]}
    for name, text in (("readme_program.json", _json(summary)), ("readme_program.md", markdown(summary))):
        (run_dir / name).write_text(text, encoding="utf-8")
    return summary


def _json(summary: dict[str, Any]) -> str:
    """Indented, but for the lists, which take a line each."""
    return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(summary, indent=1)) + "\n"


def markdown(summary: dict[str, Any]) -> str:
    """The table, with what it takes to read it."""
    training, lora = summary["training"], summary["training"]["settings"]
    compiled = f"V{training['iteration']}"
    draws = summary["together"]["rows"]["compiled"]["samples"]
    names = [f"V0, {draws} samples", ROWS[1], f"{compiled}, {draws} samples"]
    head = ["split seed", "n", *names, f"{compiled} minus V0", f"{compiled} minus {ROWS[1]}", "failed"]
    table = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, part in [*((str(split["split_seed"]), split) for split in summary["splits"]),
                       ("all", summary["together"]), ("all, puzzles never chosen on", summary["never chosen on"])]:
        rates = [f"{i['mean']:.3f} [{i['low']:.3f}, {i['high']:.3f}]"
                 for i in (part["rows"][row]["interval"] for row in ROWS)]
        gains = [f"{i['mean']:+.3f} [{i['low']:+.3f}, {i['high']:+.3f}]" for i in part["differences"].values()]
        failed = sum(row["failures"] for row in part["rows"].values())
        table.append("| " + " | ".join([name, str(part["n"]), *rates, *gains, str(failed)]) + " |")
    seen = [split["pre-training"] for split in summary["splits"]]
    return "\n".join([
        "# The README's first program, as printed", "",
        f"    python -m experiments.game24.readme_program --split-seeds {' '.join(map(str, summary['split_seeds']))}",
        "",
        f"Solved test puzzles of fresh splits (`GameOf24(split_seed=...)`), beam {summary['beam']}, {summary['date']}; "
        f"{summary['information']}, no filter; STL seeds {summary['stl_seeds']}, evaluation seeds "
        f"{summary['eval_seeds']}. The answer scored is the program's own, first trial; a failed task counts as not "
        "solved. Brackets: 95 % intervals, differences paired, bootstrap over puzzles and seeds. \"All\" "
        f"resamples the puzzles of all splits ({summary['together']['distinct puzzles']} distinct ones), not the "
        "splits; its last line leaves out every puzzle that was a validation puzzle when settings were chosen.", "",
        *table, "",
        f"Settings, brought by the model directory: {_listed(training['stl'])}; learning rate "
        f"{lora['learning_rate']:g}, {lora['epochs']:g} epochs, batches of {lora['batch_size']}. They and the program "
        "were chosen on validation puzzles only: of split seeds "
        f"{', '.join(map(str, summary['tuned_on_split_seeds']))}, and earlier, for the demo, of the usual splits. The "
        "split seeds above were run once, at the end.", "",
        "The model's pre-training held back the states of the usual test puzzles, not of these: of "
        f"{' / '.join(str(split['n']) for split in summary['splits'])} test puzzles here it had held back "
        f"{' / '.join(str(each['puzzles held back']) for each in seen)}, and "
        f"{' / '.join(format(each['states held back'] / each['states'], '.0%') for each in seen)} of the states that "
        "they reach. Of the others it may have seen random play-outs, never a solution that was looked up; V0 and "
        f"{compiled} share that pre-training; how much it lifts either was not measured.", ""])


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split-seeds", type=int, nargs="+", required=True, help=f"fresh ones: none of {TUNED_ON}")
    parser.add_argument("--stl-seeds", type=int, nargs="+", default=[0], help="compiles per split. Default: 0")
    parser.add_argument("--eval-seeds", type=int, nargs="+", default=[0, 1], help="of every row. Default: 0 1")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/readme-program"), help="Default: %(default)s")
    parser.add_argument("--publish", type=Path, help="also copy the JSON and the table to this folder")
    arguments = parser.parse_args(argv)

    def work() -> None:
        summary = run(arguments.run_dir, arguments.split_seeds, arguments.stl_seeds, arguments.eval_seeds)
        if arguments.publish:
            for name in ("readme_program.json", "readme_program.md"):
                shutil.copy(arguments.run_dir / name, arguments.publish / name)
        print(markdown(summary))

    return guarded(work, arguments.run_dir)


if __name__ == "__main__":
    sys.exit(main())
