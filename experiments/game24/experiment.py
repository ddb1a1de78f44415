"""Self-Taught Lookahead on Game of 24, end to end.

    python -m experiments.game24                                   # the demo: the embedded model, on two cores
    python -m experiments.game24 --policy openai/gpt-4o --value hosted_vllm/NAME --weights DIR
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from experiments.game24.baselines import Baselines
from experiments.kit import report
from experiments.kit.command import guarded
from experiments.kit.evaluation import Cell, evaluate, slug
from experiments.kit.progress import Bars
from experiments.kit.tracking import MlflowCallback, iteration_bills
from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.data.lookahead import Closed, LookaheadExample
from optimizers.data.rows import Filter
from optimizers.stl import shuffled
from stl_programs import BeamSearch, GameOf24, LegalMoves, Oracle, Policy, SearchProgram, Uniform, Value, models
from stl_programs.costs import LABELS, Bill, bills_of, total
from stl_programs.engine import read_journal
from stl_programs.environments.game24.world import calculator_check, format_numbers, reachable
from stl_programs.models.formats import FORMATS
from stl_programs.records import Task


@dataclass(frozen=True)
class Settings:
    """One experiment. The defaults are the demo's; `experiments.game24.study` varies them."""

    policy: str = "legal"
    value: str = "embedded/game24"
    policy_format: str | None = None
    value_format: str | None = None
    weights: str | None = None
    csv: str | None = None
    iterations: int = 2
    tasks: int = 100
    samples: int = 3
    aggregate: Literal["median", "mean", "max"] = "mean"
    rollout_samples: int = 3
    rollout_aggregate: Literal["median", "mean", "max"] = "max"
    width: int = 5
    expand: Literal["kept", "all"] = "all"
    filter: Literal["calculator", "none"] = "calculator"
    strict: int = 0
    variant: Literal["lv", "lv+tr", "lv+tr+r"] = "lv+tr+r"
    start: Literal["base", "continue"] = "base"
    others_per_top: float | None = 1.5
    loss: Literal["output", "input+output"] = "output"
    learning_rate: float = 6e-3
    epochs: float = 6
    batch_size: int = 16
    max_tokens: int = 512
    concurrency: int = 50
    in_flight: int = 32

    @property
    def information(self) -> str:
        """What the training may see: its name in every table."""
        return "calculator-verified" if self.filter == "calculator" else "reward-free"


def described(settings: Settings) -> dict[str, Any]:
    """The settings for a report: files by their name, not by where they lie on this disk."""
    return asdict(settings) | {name: Path(path).name if (path := getattr(settings, name)) else None
                               for name in ("csv", "weights")}


def environment(settings: Settings) -> GameOf24:
    return GameOf24(settings.csv)


def published_list() -> str | None:
    """The published puzzle list on this disk: STL_DATA/game24/24.csv, else ../shared/data/game24/24.csv."""
    root = Path(os.environ.get("STL_DATA", "../shared/data"))
    path = root / "game24" / "24.csv"
    return str(path) if path.is_file() else None


def search(settings: Settings, env: GameOf24, value: Any, beam: int, policy: str | None = None) -> BeamSearch:
    """The program of a row; `policy` in place of the settings' is the value model, asked in its format."""
    name, form = (policy, settings.value_format) if policy else (settings.policy, settings.policy_format)
    proposer = LegalMoves() if name == "legal" else Policy(
        env.policy_signature, name, count=12, samples=4, max_tokens=settings.max_tokens, format=form)
    return BeamSearch(env, proposer, value, width=beam)


def base_value(settings: Settings, env: GameOf24, samples: int | None = None) -> Value:
    return Value(env.value_signature, settings.value, samples=samples or settings.samples,
                 aggregate=settings.aggregate, max_tokens=settings.max_tokens, format=settings.value_format)


def untrained_rows(settings: Settings, env: GameOf24) -> list[tuple[str, Any]]:
    """The rows that a tuned value is held against."""
    return [("uniform", Uniform()), ("oracle", Oracle()), ("V0", base_value(settings, env)),
            ("V0, 8 samples", base_value(settings, env, samples=8))]


def train_tasks(settings: Settings, env: GameOf24, seed: int) -> list[Task]:
    """The training puzzles of one STL seed, in order."""
    return shuffled(env.tasks("train"), seed)[:settings.iterations * settings.tasks]


def filters(settings: Settings) -> dict[str, Filter]:
    """The task-specific filters of Algorithm 1, by name."""
    def calculator(example: LookaheadExample, score: str) -> str | None:
        head = "" if example.terminal else f"{example.action} -> {example.next_state} . "
        return calculator_check(example.state, head + example.rationale, score)

    return {"calculator": calculator} if settings.filter == "calculator" else {}


def held_back(env: GameOf24, smallest: int) -> Closed:
    """A strict split: every state of at least `smallest` numbers that some test puzzle can reach."""
    states = {format_numbers(numbers) for numbers in reachable([task.text for task in env.tasks("test")], smallest)}
    return lambda state: state.text in states


def optimizer(settings: Settings, env: GameOf24, run_dir: Path, seed: int, callback: Any = None) -> SelfTaughtLookahead:
    return SelfTaughtLookahead(
        iterations=settings.iterations, tasks_per_iteration=settings.tasks, run_dir=run_dir,
        rollout_aggregate=settings.rollout_aggregate, rollout_samples=settings.rollout_samples, expand=settings.expand,
        variant=settings.variant, start=settings.start,
        others_per_top="all" if settings.others_per_top is None else settings.others_per_top,
        filters=filters(settings), closed=held_back(env, settings.strict) if settings.strict else None,
        weights=settings.weights, in_flight=settings.in_flight, concurrency=settings.concurrency, seed=seed,
        callback=callback, lora=LoraSettings(
            learning_rate=settings.learning_rate, epochs=settings.epochs, batch_size=settings.batch_size,
            loss=settings.loss, max_length=2048))


class Iterations:
    """A compile's callback: keeps every iteration's program and costs, shows progress, passes all on to a tracker."""

    def __init__(self, bars: Bars, tracker: Any = None):
        self.bars, self.tracker = bars, tracker
        self.programs: list[SearchProgram] = []
        self.bills: list[Bill] = []

    def on_start(self, optimizer: Any, program: Any) -> None:
        if self.tracker:
            self.tracker.on_start(optimizer, program)

    def on_progress(self, k: int, stage: str, done: int, total: int, detail: str = "") -> None:
        self.bars.show(f"V{k} {stage}", done, total, detail)

    def on_iteration(self, iteration: Any, program: SearchProgram) -> None:
        self.programs.append(program)
        self.bills += iteration_bills(iteration)
        [tuned] = iteration.tuned
        manifest = tuned.dataset.manifest
        self.bars.say(f"V{iteration.k}: {manifest['rows']} rows of {manifest['examples']} examples, labels "
                      f"{manifest['labels']}, training {tuned.provenance['train_seconds']:g} s")
        if self.tracker:
            self.tracker.on_iteration(iteration, program)

    def on_end(self, program: Any) -> None:
        if self.tracker:
            self.tracker.on_end(program)


def compile_values(settings: Settings, env: GameOf24, run_dir: Path, seed: int, bars: Bars,
                   tracker: Any = None) -> tuple[list[Value], list[Bill]]:
    """V(1) ... V(n) of one STL seed, and what they cost once."""
    watch = Iterations(bars, tracker)
    student = search(settings, env, base_value(settings, env), settings.width)
    optimizer(settings, env, run_dir, seed, watch).compile(student, trainset=train_tasks(settings, env, seed))
    return [program.value for program in watch.programs], watch.bills


class Table:
    """Evaluates rows of a table; keeps their cells and what they cost."""

    def __init__(self, settings: Settings, env: GameOf24, folder: Path, bars: Bars, seeds: Sequence[int],
                 limit: int | None = None):
        self.settings, self.env, self.folder, self.bars, self.seeds = settings, env, folder, bars, list(seeds)
        self.limit = limit
        self.cells: list[Cell] = []
        self.bills: list[Bill] = []

    def add(self, row: str, value: Any, split: str, beam: int, policy: str | None = None,
            seeds: Sequence[int] | None = None) -> Cell:
        program, tasks = search(self.settings, self.env, value, beam, policy), self.env.tasks(split)[:self.limit]
        seeds = seeds or self.seeds
        stage = f"{row}, {split}, beam {beam}"
        self.bars.show(stage, 0, len(seeds) * len(tasks))
        cell = evaluate(
            program, tasks, row=row, split=split, seeds=seeds, folder=self.folder,
            concurrency=self.settings.concurrency, in_flight=self.settings.in_flight,
            progress=lambda done, total, detail: self.bars.show(stage, done, total, detail))
        self.cells.append(cell)
        wanted = {(seed, task.id) for seed in seeds for task in tasks}
        journal = read_journal(self.folder / f"{slug(row)}-{split}-b{beam}.jsonl")
        found = [result for trial, result in journal.results.items() if trial in wanted]
        k = re.match(r"V(\d+)", row)
        self.bills += bills_of(found, phase="evaluation", iteration=int(k.group(1)) if k else None)
        return cell


def choose(cells: Sequence[Cell], values: Sequence[Value], names: Sequence[str]) -> int:
    """Index of the V(k) that counts as "after STL": most validation puzzles solved, the earlier one on a tie."""
    rates = [next(c for c in cells if c.row == name and c.split == "validation").solved.mean() for name in names]
    return max(range(len(values)), key=lambda k: (rates[k], -k))


def run(settings: Settings, run_dir: Path, *, beams: Sequence[int] = (5, 1), eval_seeds: Sequence[int] = (0,),
        seed: int = 0, limit: int | None = None, mlflow_store: str | None = None) -> dict[str, Any]:
    """The whole experiment once; the summary is also written to `run_dir`/summary.json."""
    started = time.perf_counter()
    env = environment(settings)
    tunable = settings.iterations > 0
    student = search(settings, env, base_value(settings, env), settings.width)
    student.check()
    if tunable:
        optimizer(settings, env, run_dir, seed).check(student, env.tasks("train"))
    tracker = MlflowCallback(store=mlflow_store, experiment="game24", run_name=run_dir.name) if mlflow_store else None
    with Bars() as bars:
        if run_dir.exists() and any(run_dir.rglob("*.jsonl")):
            bars.say(f"{run_dir} exists: going on after the last finished rollout, training or puzzle")
        folder = run_dir / "evaluations"
        table = Table(settings, env, folder, bars, eval_seeds, limit)
        beside = tunable and models.load(settings.value).endpoint is None and (os.cpu_count() or 1) > 1
        with Baselines(beside, settings, folder, beams, eval_seeds, limit) as baselines:
            values, once = compile_values(settings, env, run_dir, seed, bars, tracker) if tunable else ([], [])
            names = [f"V{k}" for k in range(1, len(values) + 1)]
            for row, value in zip(names, values, strict=True):
                table.add(row, value, "validation", max(beams), seeds=[0])
                for beam in beams:
                    table.add(row, value, "test", beam)
            chosen = names[choose(table.cells, values, names)] if values else "V0"
            if settings.policy == "legal":
                table.add(f"{chosen}, policy {settings.value}", values[names.index(chosen)] if values else
                          base_value(settings, env), "test", max(beams), policy=settings.value)
            baselines.wait()
        if beside:
            bars.say("uniform; oracle; V0; V0, 8 samples: evaluated meanwhile by a second process")
        head = Table(settings, env, folder, Bars(report.quiet_console()) if beside else bars, eval_seeds, limit)
        for row, value in untrained_rows(settings, env):
            for beam in beams:
                head.add(row, value, "test", beam)
        table.cells[:0] = head.cells
        bills = [*once, *total([*head.bills, *table.bills], by=LABELS[:-1])]
    summary = report.summarize(
        table.cells, settings=described(settings), information=settings.information, chosen=chosen, baseline="V0",
        split_source="published list" if settings.csv else "enumeration", seconds=time.perf_counter() - started,
        stl_seeds=[seed], bills=bills)
    files = report.write(summary, run_dir)
    if tracker and tracker.parent:
        for k, _ in enumerate(values, 1):
            tracker.log_scores(k, {f"{c.split}/beam{c.beam}": c.solved.mean() for c in table.cells
                                   if c.row == f"V{k}"})
        tracker.log_scores(0, {f"{c.row}/{c.split}/beam{c.beam}": c.solved.mean() for c in table.cells})
        tracker.log_costs(bills)
        tracker.log_files(*files)
    return summary


def parse(argv: Sequence[str] | None) -> tuple[Settings, argparse.Namespace]:
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--policy", default="legal", help="who proposes moves: a LiteLLM string, or 'legal' for every legal move "
                                          "(calls no model). Default: legal")
    add("--value", default=default.value, help="who judges states, and is tuned: a LiteLLM string. Default: "
                                               "%(default)s")
    for whom in ("policy", "value"):
        add(f"--{whom}-format", choices=sorted(FORMATS), help=f"how the {whom} model is asked (docs/models.md). "
                                                              "Default: the model's own")
    add("--weights", help="directory of the value model's weights (config, safetensors, tokenizer with chat "
                          "template), needed to tune a model that is served elsewhere")
    add("--csv", default=published_list(), help="the published puzzle list 24.csv, for its splits. Default: "
                                                "$STL_DATA/game24/24.csv where it exists, else fixed splits of the "
                                                "enumeration")
    add("--iterations", type=int, default=default.iterations, help="STL iterations; 0 only evaluates. Default: "
                                                                   "%(default)s")
    add("--tasks", type=int, default=default.tasks, help="puzzles rolled out per iteration. Default: %(default)s")
    add("--samples", type=int, default=default.samples, help="draws per judgement. Default: %(default)s")
    add("--aggregate", choices=["median", "mean", "max"], default=default.aggregate,
        help="of the draws in evaluations. Default: %(default)s")
    add("--rollout-aggregate", choices=["median", "mean", "max"], default=default.rollout_aggregate,
        help="of the draws in rollouts. Default: %(default)s")
    add("--expand", choices=["kept", "all"], default=default.expand,
        help="look ahead from kept states (the paper) or from all proposed ones. Default: %(default)s")
    add("--filter", choices=["calculator", "none"], default=default.filter,
        help="drop rows whose arithmetic a calculator finds wrong, or none. Default: %(default)s")
    add("--strict", type=int, choices=[0, 2, 3], default=default.strict, metavar="SMALLEST",
        help="drop rows whose state or successor, of at least SMALLEST numbers (2 or 3), some test puzzle can reach; "
             "0 for none. Default: %(default)s")
    add("--variant", choices=["lv", "lv+tr", "lv+tr+r"], default=default.variant,
        help="what a tuned value says before its score. Default: %(default)s")
    add("--start", choices=["base", "continue"], default=default.start,
        help="train each V(k) from the base, or on from V(k-1). Default: %(default)s")
    add("--others-per-top", type=float, default=default.others_per_top,
        help="rows below the top label kept for each row at it. Default: %(default)s")
    add("--loss", choices=["output", "input+output"], default=default.loss, help="Default: %(default)s")
    add("--learning-rate", type=float, default=default.learning_rate, help="of the LoRA. Default: %(default)s")
    add("--epochs", type=float, default=default.epochs, help="Default: %(default)s")
    add("--max-tokens", type=int, default=default.max_tokens, help="longest reply. Default: %(default)s")
    add("--concurrency", type=int, default=default.concurrency, help="puzzles searched at once. Default: %(default)s")
    add("--in-flight", type=int, default=default.in_flight, help="requests at once to one served model. Default: "
                                                                  "%(default)s")
    add("--beams", type=int, nargs="+", default=[5, 1], help="beam widths that are evaluated. Default: 5 1")
    add("--eval-seeds", type=int, default=1, help="evaluations of every row, with seeds 0, 1, ... Default: 1")
    add("--seed", type=int, default=0, help="STL seed: order of puzzles, rollouts, training. Default: 0")
    add("--limit", type=int, help="evaluate only the first LIMIT puzzles of a split (a quick look; printed as n)")
    add("--run-dir", type=Path, default=Path("runs/game24-demo"), help="Default: %(default)s")
    add("--mlflow", default="sqlite:///mlflow.db", help="MLflow store; empty for none. Default: %(default)s")
    arguments = parser.parse_args(argv)
    names = set(asdict(default)) & set(vars(arguments))
    return replace(default, **{name: getattr(arguments, name) for name in names}), arguments


def main(argv: Sequence[str] | None = None) -> int:
    settings, arguments = parse(argv)

    def work() -> None:
        summary = run(settings, arguments.run_dir, beams=arguments.beams, eval_seeds=range(arguments.eval_seeds),
                      seed=arguments.seed, limit=arguments.limit, mlflow_store=arguments.mlflow or None)
        report.show(summary, arguments.run_dir, arguments.mlflow)

    return guarded(work, arguments.run_dir)

