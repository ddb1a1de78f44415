"""Self-Taught Lookahead: Algorithm 1 of the paper as a dspy optimizer."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import dspy
from dspy.teleprompt import Teleprompter

from optimizers.data.lookahead import Closed, LookaheadExample, lookahead
from optimizers.data.rows import Dataset, Filter, build_dataset
from optimizers.trainers.sft import LoraSettings, check_libraries, train_adapter
from signatures import Variant, lookahead_variant
from stl_programs import engine, models
from stl_programs.engine import Status, TaskResult
from stl_programs.errors import ModelError, StlError
from stl_programs.models import PROVENANCE, adapter_hash, base_name
from stl_programs.records import Task
from stl_programs.search import BeamSearch, SearchProgram
from stl_programs.tree import Tree
from stl_programs.values import Aggregate, PerDepth, Value

Stage = Literal["rollouts", "training"]


@dataclass
class Tuned:
    """One trained adapter, served as `lm`. `depth`: of the states it judges; None where one adapter judges all."""

    depth: int | None
    lm: str
    adapter: Path
    dataset: Dataset

    @property
    def provenance(self) -> dict[str, Any]:
        """How it was trained, with its losses."""
        return json.loads((self.adapter / PROVENANCE).read_text(encoding="utf-8"))


@dataclass
class Iteration:
    """What one iteration did: the rollouts with V(k-1), and the adapters of V(k), one or one per depth."""

    k: int
    tuned: list[Tuned]
    rollouts: list[TaskResult] = field(repr=False)


class Callback(Protocol):
    """Watches a compile. Every method may do nothing."""

    def on_start(self, optimizer: SelfTaughtLookahead, program: SearchProgram) -> None: ...
    def on_progress(self, k: int, stage: Stage, done: int, total: int, detail: str = "") -> None: ...
    def on_iteration(self, iteration: Iteration, program: SearchProgram) -> None: ...
    def on_end(self, program: SearchProgram) -> None: ...


class SelfTaughtLookahead(Teleprompter):
    """Improve a program's value model by its own one-step lookahead: no reward, no demonstration.

    Args:
        iterations: n. tasks_per_iteration: m; the training set is used in order, and again from its start if it is
            shorter than n * m.
        run_dir: where rollouts, data and adapters are written. A compile that was cut short goes on from there.
        rollout_aggregate: of the draws during rollouts; the compiled program keeps its own for evaluation.
        rollout_samples: draws per state during rollouts; None keeps the program's.
        expand: look ahead from the "kept" states of a rollout, as the paper does, or from "all" proposed ones.
        gamma: discount of equation 3.
        variant: what a tuned value says before its score: lv, lv+tr or lv+tr+r.
        start: fine-tune every V(k) from the "base" model, as the paper does, or "continue" from V(k-1).
        merge: keep examples of earlier iterations, the latest label of a state winning (appendix F.4).
        others_per_top: rows below the top score for each row at it; None keeps all.
        filters: named predicates that drop examples; see `optimizers.data.rows`.
        closed: states that no training row may be about or lead to (a strict split).
        per_depth: one adapter for the states of every depth (appendix D.3), the last one for all deeper; where states
            of one look are worth different things early and late. The compiled value is a `PerDepth`.
        terminal_states: also train on the judgements of terminal states.
        share_judgements: judge a state once per rollout phase, where values do not depend on the task.
        lora: training settings; the paper's by default.
        in_flight, concurrency: requests at once to one endpoint, and tasks open at once; see `run_tasks`.
        weights: directory of the value model's weights, where the model itself is served elsewhere.

    Example:
        >>> stl = SelfTaughtLookahead(iterations=2, tasks_per_iteration=50, run_dir="runs/mine")
        >>> compiled = stl.compile(program, trainset=env.tasks("train"))
    """

    def __init__(self, *, iterations: int = 1, tasks_per_iteration: int = 50, run_dir: str | Path = "runs/stl",
                 rollout_aggregate: Aggregate = "median", rollout_samples: int | None = None,
                 expand: Literal["kept", "all"] = "kept", gamma: float = 1.0, variant: Variant = "lv+tr+r",
                 start: Literal["base", "continue"] = "base", merge: bool = True,
                 others_per_top: float | None = None, filters: dict[str, Filter] | None = None,
                 closed: Closed | None = None, per_depth: bool = False,
                 terminal_states: bool = True, share_judgements: bool = True, lora: LoraSettings | None = None,
                 weights: str | Path | None = None, in_flight: int = 32, concurrency: int | None = None, seed: int = 0,
                 callback: Callback | None = None):
        super().__init__()
        if iterations < 1 or tasks_per_iteration < 1:
            raise ValueError(f"iterations={iterations}, tasks_per_iteration={tasks_per_iteration}: each at least 1")
        if start not in ("base", "continue"):
            raise ValueError(f"start={start!r}: choose 'base' or 'continue'")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma={gamma}: a discount is above 0 and at most 1")
        self.iterations, self.tasks_per_iteration, self.run_dir = iterations, tasks_per_iteration, Path(run_dir)
        self.rollout_aggregate, self.rollout_samples, self.expand = rollout_aggregate, rollout_samples, expand
        self.gamma, self.variant, self.start, self.merge = gamma, variant, start, merge
        self.closed, self.per_depth = closed, per_depth
        self.others_per_top, self.filters, self.terminal_states = others_per_top, filters or {}, terminal_states
        self.share_judgements, self.lora, self.concurrency = share_judgements, lora or LoraSettings(), concurrency
        self.in_flight = in_flight
        self.weights, self.seed, self.callback = Path(weights) if weights else None, seed, callback

    def compile(self, student: SearchProgram, *, trainset: Sequence[Task | str | dspy.Example],
                teacher: Any = None, valset: Any = None, **_: Any) -> SearchProgram:
        """A new program whose value model is V(n); `student` is left as it is.

        Raises StlError (or a child), before any work, for an empty training set or a model that cannot be tuned or
        reached.
        """
        tasks, weights = self.check(student, trainset)
        if self.callback:
            self.callback.on_start(self, student)
        program: SearchProgram = student
        examples: list[LookaheadExample] = []                       # D
        tuned: list[Tuned] = []
        for k in range(1, self.iterations + 1):
            batch = _take(tasks, (k - 1) * self.tasks_per_iteration, self.tasks_per_iteration)
            rollouts = self._roll_out(program, batch, k)            # search trees with pi and V(k-1)
            found, dropped = self._look_ahead(rollouts)             # (s, o_s, y_s) of every visited state
            datasets = self._filter(student, found, examples, dropped)
            tuned = self._fine_tune(student, datasets, weights, k, tuned)      # from V(0), or on from V(k-1)
            examples = [e for dataset in datasets.values() for e in dataset.examples] if self.merge else []
            program = self._with_adapters(student, tuned, k)        # the student with V(k)
            if self.callback:
                self.callback.on_iteration(Iteration(k, tuned, rollouts), program)
        if self.callback:
            self.callback.on_end(program)
        return program

    # The steps of an iteration

    def _roll_out(self, program: SearchProgram, tasks: list[Task], k: int) -> list[TaskResult]:
        roller = program.deepcopy()
        for value in roller.value.values if isinstance(roller.value, PerDepth) else [roller.value]:
            value.aggregate, value.samples = self.rollout_aggregate, self.rollout_samples or value.samples
        if isinstance(roller, BeamSearch):
            roller.expand_what = self.expand

        def progress(status: Status) -> None:
            if self.callback:
                self.callback.on_progress(k, "rollouts", status.done, status.total, status.detail)

        results = engine.run_sync(engine.run_tasks(
            roller, tasks, seed=self.seed + 1000 * k, in_flight=self.in_flight, concurrency=self.concurrency,
            progress=progress,
            journal=self.run_dir / f"rollouts-{k}.jsonl", fingerprint={"program": roller.dump_state()},
            share_judgements=self.share_judgements and program.environment.task_free_values, keep_trees=True))
        failed = [result for result in results if result.error]
        if len(failed) == len(results):
            raise StlError(f"all {len(failed)} rollouts failed; the first: {failed[0].error}")
        return results

    def _look_ahead(self, rollouts: list[TaskResult]) -> tuple[list[LookaheadExample], Counter[str]]:
        trees = [Tree.from_dict(result.tree) for result in rollouts if result.tree]
        return lookahead(trees, gamma=self.gamma, terminal_states=self.terminal_states,
                         closed=self.closed, seed=self.seed)

    def _filter(self, student: SearchProgram, found: list[LookaheadExample], earlier: list[LookaheadExample],
                dropped: Counter[str]) -> dict[int | None, Dataset]:
        """The rows, by the depth whose value they teach; all under None where one value judges every depth."""
        environment = student.environment

        def build(found: list[LookaheadExample], earlier: list[LookaheadExample], dropped: Counter[str]) -> Dataset:
            return build_dataset(
                found, environment.lookahead_signature, student.value.prompt_format,
                student.value.scale or environment.scale, variant=self.variant, earlier=earlier, filters=self.filters,
                others_per_top=self.others_per_top, seed=self.seed, dropped=dropped)

        if not self.per_depth:
            return {None: build(found, earlier, dropped)}
        datasets: dict[int | None, Dataset] = {}
        for depth in range(1, max((value_depth(e) for e in [*found, *earlier]), default=1) + 1):
            try:
                datasets[depth] = build([e for e in found if value_depth(e) == depth],
                                        [e for e in earlier if value_depth(e) == depth],
                                        dropped if depth == 1 else Counter())
            except ValueError as error:
                raise StlError(f"depth {depth}: {error}; or train one adapter for all depths (per_depth=False)"
                               ) from None
        return datasets

    def _fine_tune(self, student: SearchProgram, datasets: dict[int | None, Dataset], weights: Path, k: int,
                   previous: list[Tuned]) -> list[Tuned]:
        before = {tuned.depth: tuned.adapter for tuned in previous} if self.start == "continue" else {}
        tuned = []
        for i, (depth, dataset) in enumerate(datasets.items()):
            suffix = f"{k}" if depth is None else f"{k}-d{depth}"
            dataset.save(self.run_dir / f"data-{suffix}")

            def progress(step: int, steps: int, i: int = i) -> None:
                if self.callback:
                    self.callback.on_progress(k, "training", i * steps + step, len(datasets) * steps)

            train_adapter(dataset, weights, out := self.run_dir / f"adapter-{suffix}", self.lora, seed=self.seed + k,
                          progress=progress, continue_from=before.get(depth),
                          provenance={"base": base_name(student.value.model.name), "iteration": k, "depth": depth})
            tuned.append(Tuned(depth, version_name(student, k, out, depth), out, dataset))
        return tuned

    def _with_adapters(self, student: SearchProgram, tuned: list[Tuned], k: int) -> SearchProgram:
        program = student.deepcopy()
        values = [tuned_value(student, one.lm, one.adapter, self.variant) for one in tuned]
        program.value = PerDepth(values) if self.per_depth else values[0]
        return program

    def check(self, student: SearchProgram,
              trainset: Sequence[Task | str | dspy.Example]) -> tuple[list[Task], Path]:
        """The tasks and the value model's weights. Raises StlError, before any work, for what `compile` cannot do."""
        if not trainset:
            raise StlError("the training set is empty; pass at least one task")
        if not isinstance(student.value, Value):
            raise ModelError(f"the program's value is {type(student.value).__name__}; STL tunes a Value")
        model = student.value.model
        weights = self.weights or model.weights()
        if weights is None:
            raise ModelError(f"{model.name} cannot be tuned from here; pass weights=DIRECTORY with the model's "
                             "config, safetensors and tokenizer")
        if not (weights / "config.json").is_file():
            raise ModelError(f"weights={str(weights)!r} is no model directory: it has no config.json")
        check_libraries()
        student.check()
        return [_task(student, entry) for entry in trainset], weights

    def settings(self) -> dict[str, Any]:
        """Everything that shapes the result, JSON-ready."""
        names = ("iterations", "tasks_per_iteration", "rollout_aggregate", "rollout_samples", "expand", "gamma",
                 "variant", "start", "merge", "others_per_top", "per_depth", "terminal_states",
                 "share_judgements", "seed")
        return {name: getattr(self, name) for name in names} | {
            "filters": sorted(self.filters), "closed": self.closed is not None, "lora": asdict(self.lora)}


def version_name(student: SearchProgram, k: int, adapter: Path, depth: int | None = None) -> str:
    """The name that serves V(k): BASE@value-v1-HASH, or BASE@value-d2-v1-HASH where there is one per depth."""
    where = "" if depth is None else f"d{depth}-"
    return f"{base_name(student.value.model.name)}@value-{where}v{k}-{adapter_hash(adapter)[:10]}"


def tuned_value(student: SearchProgram, name: str, adapter: Path, variant: Variant) -> Value:
    """V(k): the student's value with the tuned signature and the adapter, swapped together."""
    old: Value = student.value
    models.register_adapter(name, adapter, None if isinstance(old.lm, str) else old.model)
    return Value(lookahead_variant(student.environment.lookahead_signature, variant), name, samples=old.samples,
                 aggregate=old.aggregate, scale=old.scale, temperature=old.temperature, max_tokens=old.max_tokens,
                 format=old.format, budget=old.budget)


def value_depth(example: LookaheadExample) -> int:
    """Which of a `PerDepth`'s values judges the example's state: the root counts with the first step."""
    return max(example.depth, 1)


def _task(student: SearchProgram, entry: Task | str | dspy.Example) -> Task:
    if isinstance(entry, Task):
        return entry
    return student.environment.task(entry if isinstance(entry, str) else entry.task)


def _take(tasks: list[Task], start: int, count: int) -> list[Task]:
    """`count` distinct tasks from `start` on, wrapping round."""
    count = min(count, len(tasks))
    return [tasks[(start + i) % len(tasks)] for i in range(count)]


def shuffled(tasks: Sequence[Task], seed: int) -> list[Task]:
    """The tasks in an order that depends on `seed` alone."""
    order = list(tasks)
    random.Random(seed).shuffle(order)
    return order

