"""The paper's protocol on a world of pages (section 5, appendices D and E), for any policy and value by their strings.

Rollouts by MCTS on training tasks; one iteration of Self-Taught Lookahead, with one adapter per depth; greedy search
with the base value and with the tuned one on the same test tasks, several trials each.
"""

from __future__ import annotations

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from experiments.kit import report
from experiments.kit.command import guarded, number, whole
from experiments.kit.evaluation import Cell, journal_of, slug
from experiments.kit.fakes import FAKE, fake_model
from experiments.kit.progress import Bars
from experiments.kit.tables import show
from experiments.kit.tracking import MlflowCallback
from experiments.kit.trials import SCORED, trials
from experiments.kit.watching import Iterations
from optimizers import LoraSettings, SelfTaughtLookahead
from stl_programs import MCTS, BasePolicy, Environment, GreedySearch, Value
from stl_programs.costs import Bill, bills_of
from stl_programs.engine import read_journal
from stl_programs.models.formats import FORMATS
from stl_programs.secrets import shown_url
from stl_programs.viewer import tree_page


@dataclass(frozen=True)
class Settings:
    """What is varied; the defaults are the paper's but for policy and value, which need no model here."""

    policy: str = "legal"
    value: str = FAKE
    policy_format: str | None = None
    value_format: str | None = None
    weights: str | None = None
    tasks: int = 50
    iterations: int = 1
    simulations: int = 5
    actions: int = 5
    samples: int = 5
    trials: int = 3
    epochs: float = 20
    learning_rate: float = 2e-4
    batch_size: int = 8
    loss: Literal["output", "input+output"] = "input+output"
    adapters: Literal["per depth", "one"] = "per depth"
    max_tokens: int = 1024
    concurrency: int = 16
    in_flight: int = 32


class World(ABC):
    """What a world's experiment adds to the protocol."""

    name: ClassVar[str]
    title: ClassVar[str]
    fake: ClassVar[tuple[str, Callable[..., Any]]]
    """The named fake that judges where no model is given."""
    settings: Settings = Settings()

    @abstractmethod
    def flags(self, parser: argparse.ArgumentParser) -> None:
        """The world's own flags."""

    @abstractmethod
    def open(self, arguments: argparse.Namespace, run_dir: Path) -> None:
        """Makes `training` and `testing`, the worlds of rollouts and of evaluations."""

    training: Environment
    testing: Environment

    @abstractmethod
    def policy(self, settings: Settings, env: Environment) -> BasePolicy: ...

    @abstractmethod
    def value(self, settings: Settings, lm: Any) -> Value:
        """The base value."""

    def notes(self) -> str:
        """What a score depends on, as sentences."""
        return f"A judged state is a page that was seen. {getattr(self.testing, 'provenance', self.testing.name)}."

    def bills(self) -> list[Bill]:
        """What scoring cost, where a model does it."""
        return []


def run(world: World, settings: Settings, run_dir: Path, *, seed: int = 0, limit: int | None = None,
        mlflow_store: str | None = None, pages: bool = False) -> dict[str, Any]:
    """The whole protocol once; goes on from what `run_dir` holds. The summary is also written there."""
    started = time.perf_counter()
    with ExitStack() as stack:
        weights, lm = settings.weights, settings.value
        if settings.value == FAKE:
            fake, script = world.fake
            settings = replace(settings, value_format="chat")  # which it reads
            weights = str(run_dir / "random-weights")
            lm = stack.enter_context(fake_model(script, fake, Path(weights)))
        value = world.value(settings, lm)
        student = MCTS(world.training, world.policy(settings, world.training), value,
                       simulations=settings.simulations, rollout=True)
        student.check()
        if settings.iterations:
            optimizer(settings, run_dir, seed, weights, None).check(student, world.training.tasks("train"))
        tracker = MlflowCallback(store=mlflow_store, experiment=world.name, run_name=run_dir.name) \
            if mlflow_store and settings.iterations else None
        bars = stack.enter_context(Bars())
        made = Iterations(bars, tracker, lambda k: "tuned" if settings.iterations == 1 else f"tuned {k}")
        if run_dir.exists() and any(run_dir.rglob("*.jsonl")):
            bars.say(f"{run_dir} exists: going on after the last finished rollout, training or task")
        values = [("base", value)]
        if settings.iterations:
            optimizer(settings, run_dir, seed, weights, made).compile(student, trainset=world.training.tasks("train"))
            values += [(made.name(k), program.value) for k, program in enumerate(made.programs, 1)]
        cells, bills = list[Cell](), list(made.bills)
        for k, (row, judge) in enumerate(values):
            found, results = _evaluated(world, settings, row, judge, run_dir, bars, limit)
            cells += found
            bills += bills_of(results, phase="evaluation", iteration=k)
            if pages:
                _write_pages(results, run_dir / "pages", row)
        bills += world.bills()
        summary = report.summarize(
            cells, title=world.title, information="reward-free", measure="score", baselines=["base"],
            settings=_described(settings), trial=SCORED.format(n=settings.trials) if settings.trials > 1 else "first",
            notes=_notes(world, settings, seed), bills=bills, more={"rollouts": made.rollouts},
            seconds=time.perf_counter() - started)
        files = report.write(summary, run_dir)
        if tracker and tracker.parent:
            for k, (row, _) in enumerate(values):
                tracker.log_scores(k, {cell.place: cell.mean_score for cell in cells if cell.row == row})
            tracker.log_costs(bills)
            tracker.log_files(*files)
    return summary


def optimizer(settings: Settings, run_dir: Path, seed: int, weights: str | None, callback: Any) -> SelfTaughtLookahead:
    """Self-Taught Lookahead with the paper's settings of these worlds."""
    return SelfTaughtLookahead(
        iterations=settings.iterations, tasks_per_iteration=settings.tasks, run_dir=run_dir, rollout_aggregate="mean",
        rollout_samples=settings.samples, expand="kept",
        per_depth=settings.adapters == "per depth", others_per_top="all", share_judgements=False, weights=weights,
        in_flight=settings.in_flight, concurrency=settings.concurrency, seed=seed, callback=callback,
        lora=LoraSettings(epochs=settings.epochs, learning_rate=settings.learning_rate, loss=settings.loss,
                          batch_size=settings.batch_size))


def _evaluated(world: World, settings: Settings, row: str, value: Any, run_dir: Path, bars: Bars,
               limit: int | None) -> tuple[list[Cell], list[Any]]:
    """A row's cells, and every search behind them."""
    tasks, folder = world.testing.tasks("test")[:limit], run_dir / "evaluations"
    stage = f"{row}, test, {settings.trials} trial{'s' * (settings.trials > 1)}"
    bars.show(stage, 0, settings.trials * len(tasks))
    cells = trials(GreedySearch(world.testing, world.policy(settings, world.testing), value), tasks, row=row,
                   split="test", folder=folder, count=settings.trials, concurrency=settings.concurrency,
                   in_flight=settings.in_flight, progress=lambda done, total, detail: bars.show(
                       stage, done, total, detail))
    failed = [outcome["error"] for outcome in cells[0].outcomes[0] if outcome["error"] is not None]
    if failed:
        bars.say(f"{row}: {len(failed)} of {len(tasks)} first trials failed and score 0, one of them with: {failed[0]}")
    wanted = {(seed, task.id) for seed in range(settings.trials) for task in tasks}
    journal = read_journal(journal_of(folder, row, "test", {}))
    return cells, [result for trial, result in journal.results.items() if trial in wanted]


def _write_pages(results: Sequence[Any], folder: Path, row: str) -> None:
    """The tree of every task's first trial as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        if result.tree and result.seed == 0:
            (folder / f"{row}-{slug(result.task)}.html").write_text(tree_page(result.tree), encoding="utf-8")


def _described(settings: Settings) -> dict[str, Any]:
    return asdict(settings) | {"weights": Path(settings.weights).name if settings.weights else None}


def _notes(world: World, settings: Settings, seed: int) -> str:
    fake = (f"The judge is a named fake, {world.fake[0]!r}: it counts words and does not learn, so the tuned value "
            "differs from the base by chance alone; give --value and --weights for a model. ")
    legal = "The policy is every legal action: it calls no model. " if settings.policy == "legal" else ""
    return f"{fake if settings.value == FAKE else ''}{legal}{world.notes()} STL seed {seed}."


def parse(world: World, module: str, argv: Sequence[str] | None) -> tuple[Settings, argparse.Namespace]:
    """The command line: the protocol's flags and the world's."""
    default = world.settings
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=world.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--policy", default=default.policy, help="who proposes actions: a LiteLLM string, or 'legal'. Default: legal")
    add("--value", default=default.value, help="who judges states, and is tuned: a LiteLLM string; 'fake' is a named "
                                               "fake that counts words. Default: %(default)s")
    for whom in ("policy", "value"):
        add(f"--{whom}-format", choices=sorted(FORMATS), help=f"how the {whom} model is asked. Default: its own")
    add("--weights", help="directory of the value model's weights, needed to tune a model that is served elsewhere")
    add("--tasks", type=whole(1), default=default.tasks, help="training tasks an iteration. Default: %(default)s")
    add("--iterations", type=whole(0, 100), default=default.iterations, help="0 only evaluates. Default: %(default)s")
    add("--simulations", type=whole(1), default=default.simulations, help="of MCTS in rollouts. Default: %(default)s")
    add("--actions", type=whole(1, 1000), default=default.actions, help="proposed at most, B. Default: %(default)s")
    add("--samples", type=whole(1, 1000), default=default.samples, help="draws a judgement. Default: %(default)s")
    add("--trials", type=whole(1, 100), default=default.trials, help="of every test task. Default: %(default)s")
    add("--epochs", type=number(0, 1e4, above=True), default=default.epochs, help="Default: %(default)s")
    add("--learning-rate", type=number(0, 1, above=True), default=default.learning_rate, help="Default: %(default)s")
    add("--batch-size", type=whole(1), default=default.batch_size, help="Default: %(default)s")
    add("--loss", choices=["output", "input+output"], default=default.loss, help="Default: %(default)s")
    add("--adapters", choices=["per depth", "one"], default=default.adapters, help="Default: %(default)s")
    add("--max-tokens", type=whole(1), default=default.max_tokens, help="longest reply. Default: %(default)s")
    add("--concurrency", type=whole(1), default=default.concurrency, help="tasks at once. Default: %(default)s")
    add("--in-flight", type=whole(1), default=default.in_flight, help="requests at once. Default: %(default)s")
    add("--limit", type=whole(1), help="evaluate only the first LIMIT test tasks (a quick look; printed as n)")
    add("--seed", type=whole(0, 2**32 - 1), default=0, help="of rollouts and training. Default: 0")
    add("--pages", action="store_true", help="write the search tree of every test task as a page, in RUN_DIR/pages")
    add("--run-dir", type=Path, default=Path(f"runs/{world.name}"), help="Default: %(default)s")
    add("--mlflow", default="sqlite:///mlflow.db", help="MLflow store; empty for none. Default: %(default)s")
    world.flags(parser)
    arguments = parser.parse_args(argv)
    names = set(asdict(default)) & set(vars(arguments))
    return replace(default, **{name: getattr(arguments, name) for name in names}), arguments


def main(world: World, module: str, argv: Sequence[str] | None = None) -> int:
    """The command of a world's experiment."""
    settings, arguments = parse(world, module, argv)

    def work() -> None:
        world.open(arguments, arguments.run_dir)
        summary = run(world, settings, arguments.run_dir, seed=arguments.seed, limit=arguments.limit,
                      mlflow_store=arguments.mlflow or None, pages=arguments.pages)
        show(summary, arguments.run_dir, _following(module, arguments))

    return guarded(work, arguments.run_dir)


def _following(module: str, arguments: argparse.Namespace) -> list[str]:
    store = shown_url(arguments.mlflow) if arguments.mlflow else ""
    return ["Next:", *([f"  make ui     runs side by side in MLflow ({store})"] if store else []),
            f"  python -m {module} --policy openai/gpt-4o --value hosted_vllm/NAME --weights DIR   with your models"]
