"""Self-Taught Lookahead on Game of 24, end to end.

    python -m experiments.game24                                   # the demo: the embedded model, on two cores
    python -m experiments.game24 --policy openai/gpt-4o --value hosted_vllm/NAME --weights DIR
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.game24.baselines import Baselines
from experiments.game24.programs import base_value, environment, optimizer, search, untrained_rows
from experiments.game24.rows import Table, choose
from experiments.game24.settings import Settings, described, published_list
from experiments.game24.tuning import Iterations, compile_values
from experiments.game24.words import SCORED, following, notes, title
from experiments.kit import report
from experiments.kit.command import guarded, number, whole
from experiments.kit.progress import Bars, quiet_console
from experiments.kit.tables import show
from experiments.kit.tracking import MlflowCallback
from stl_programs import models
from stl_programs.costs import LABELS, total
from stl_programs.models.formats import FORMATS


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
            made = compile_values(settings, env, run_dir, seed, bars, tracker) if tunable else Iterations(bars)
            values = made.values
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
        head = Table(settings, env, folder, Bars(quiet_console()) if beside else bars, eval_seeds, limit)
        for row, value in untrained_rows(settings, env):
            for beam in beams:
                head.add(row, value, "test", beam)
        table.cells[:0] = head.cells
        bills = [*made.bills, *total([*head.bills, *table.bills], by=LABELS[:-1])]
    summary = report.summarize(
        table.cells, title=title(settings.information), information=settings.information, settings=described(settings),
        **SCORED, more={"rollouts": made.rollouts}, chosen=chosen,
        notes=notes(settings.csv, [seed], settings.policy), bills=bills, seconds=time.perf_counter() - started)
    files = report.write(summary, run_dir)
    if tracker and tracker.parent:
        for k, _ in enumerate(values, 1):
            tracker.log_scores(k, {c.place: c.success_rate for c in table.cells if c.row == f"V{k}"})
        tracker.log_scores(0, {f"{c.row}/{c.place}": c.success_rate for c in table.cells})
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
    add("--iterations", type=whole(0, 1000), default=default.iterations,
        help="STL iterations; 0 only evaluates. Default: %(default)s")
    add("--tasks", type=whole(1), default=default.tasks, help="puzzles rolled out per iteration. Default: %(default)s")
    add("--samples", type=whole(1, 10_000), default=default.samples, help="draws per judgement. Default: %(default)s")
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
    add("--others-per-top", type=number(0, 1e6), default=default.others_per_top,
        help="rows below the top label kept for each row at it. Default: %(default)s")
    add("--loss", choices=["output", "input+output"], default=default.loss, help="Default: %(default)s")
    add("--learning-rate", type=number(0, 1, above=True), default=default.learning_rate,
        help="of the LoRA. Default: %(default)s")
    add("--epochs", type=number(0, 1e4, above=True), default=default.epochs, help="Default: %(default)s")
    add("--max-tokens", type=whole(1), default=default.max_tokens, help="longest reply. Default: %(default)s")
    add("--concurrency", type=whole(1), default=default.concurrency,
        help="puzzles searched at once. Default: %(default)s")
    add("--in-flight", type=whole(1), default=default.in_flight, help="requests at once to one served model. Default: "
                                                                  "%(default)s")
    add("--beams", type=whole(1, 10_000), nargs="+", default=[5, 1],
        help="beam widths that are evaluated. Default: 5 1")
    add("--eval-seeds", type=whole(1, 1000), default=1,
        help="evaluations of every row, with seeds 0, 1, ... Default: 1")
    add("--seed", type=whole(0, 2**32 - 1), default=0,
        help="STL seed: order of puzzles, rollouts, training. Default: 0")
    add("--limit", type=whole(1), help="evaluate only the first LIMIT puzzles of a split (a quick look; printed as n)")
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
        show(summary, arguments.run_dir, following(arguments.mlflow))

    return guarded(work, arguments.run_dir)
