"""What optimizers of weights share: rollouts, then data, then training, then serving; again, and resumable."""

from __future__ import annotations

import random
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import dspy
from dspy.teleprompt import Teleprompter

from optimizers.data.rows import Dataset
from optimizers.defaults import lora_settings
from optimizers.trainers.base import Trainer
from optimizers.trainers.sft import LoraSettings, SupervisedTrainer
from stl_programs import engine, models
from stl_programs.construct import Count, checked
from stl_programs.engine import Status, TaskResult
from stl_programs.errors import ModelError, StlError
from stl_programs.models import adapter_hash, base_name
from stl_programs.models.adapters import read_provenance
from stl_programs.predictor import Predictor
from stl_programs.records import Task
from stl_programs.search import SearchProgram

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
        return read_provenance(self.adapter).model_dump(exclude_unset=True)


@dataclass
class Iteration:
    """What one iteration did: the rollouts with the weights before it, and the adapters that came of them."""

    k: int
    tuned: list[Tuned]
    rollouts: list[TaskResult] = field(repr=False)


class Callback(Protocol):
    """Watches a compile. Every method may do nothing."""

    def on_start(self, optimizer: WeightOptimizer, program: SearchProgram) -> None: ...
    def on_progress(self, k: int, stage: Stage, done: int, total: int, detail: str = "") -> None: ...
    def on_iteration(self, iteration: Iteration, program: SearchProgram) -> None: ...
    def on_end(self, program: SearchProgram) -> None: ...


class WeightOptimizer(Teleprompter):
    """Base of the optimizers of weights. A subclass says which part it tunes (`tunes`), what its rows are (`datasets`)
    and how the tuned part is put in (`with_adapters`); it is found by the name of its class.

    Args:
        iterations: n.
        tasks_per_iteration: m; the training set is used in order, and again from its start if it is shorter than n * m.
        run_dir: where rollouts, data and adapters are written. A compile that was cut short goes on from there.
        start: fine-tune every iteration from the "base" model, or "continue" from the adapter before.
        lora: training settings, passed as a whole: what a `LoraSettings` leaves out is the paper's. None: those that
            the model directory brings.
        weights: directory of the tuned model's weights, where the model itself is served elsewhere.
        in_flight, concurrency, executor: see `run_tasks`.
        seed: of rollouts and training.
        callback: is told how far the compile is.
    """

    kinds: ClassVar[dict[str, type[WeightOptimizer]]] = {}
    role: ClassVar[str] = "value"
    """What the adapters are called."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        WeightOptimizer.kinds[cls.__name__] = cls

    @checked
    def __init__(self, *, iterations: Count = 1, tasks_per_iteration: Count = 50, run_dir: str | Path = "runs/tuned",
                 start: Literal["base", "continue"] = "base", lora: LoraSettings | None = None,
                 weights: str | Path | None = None, in_flight: Count = 32, concurrency: Count | None = None,
                 executor: Any = "local", seed: int = 0, callback: Callback | None = None):
        super().__init__()
        self.iterations, self.tasks_per_iteration, self.run_dir = iterations, tasks_per_iteration, Path(run_dir)
        self.start, self.lora, self.weights = start, lora, Path(weights) if weights else None
        self.in_flight, self.concurrency, self.executor = in_flight, concurrency, executor
        self.seed, self.callback = seed, callback
        self.directory: Path | None = None
        """The tuned model's weights, once `check` has seen the program."""

    def compile(self, student: SearchProgram, *, trainset: Sequence[Task | str | dspy.Example],
                teacher: Any = None, valset: Any = None, **_: Any) -> SearchProgram:
        """A new program with tuned weights; `student` is left as it is.

        Raises StlError (or a child), before any work, for an empty training set or a model that cannot be tuned or
        reached.
        """
        tasks, weights = self.check(student, trainset)
        if self.callback:
            self.callback.on_start(self, student)
        program, tuned = student, list[Tuned]()
        for k in range(1, self.iterations + 1):
            batch = take(tasks, (k - 1) * self.tasks_per_iteration, self.tasks_per_iteration)
            rollouts = self.roll_out(program, batch, k)
            tuned = self.fine_tune(student, self.datasets(student, rollouts, k), weights, k, tuned)
            program = self.with_adapters(student, tuned)
            if self.callback:
                self.callback.on_iteration(Iteration(k, tuned, rollouts), program)
        if self.callback:
            self.callback.on_end(program)
        return program

    # What a subclass says

    @abstractmethod
    def tunes(self, student: SearchProgram) -> Predictor:
        """The predictor whose model is tuned. Raises ModelError where the program has none that can be."""

    @abstractmethod
    def datasets(self, student: SearchProgram, rollouts: Sequence[TaskResult], k: int) -> Mapping[int | None, Dataset]:
        """The rows of iteration k, by the depth whose adapter they train; under None for one adapter."""

    @abstractmethod
    def with_adapters(self, student: SearchProgram, tuned: Sequence[Tuned]) -> SearchProgram:
        """A copy of `student` whose tuned part answers with the adapters."""

    def roller(self, program: SearchProgram) -> SearchProgram:
        """The program that rolls out; a copy with other settings where a subclass wants them."""
        return program

    def trainer(self) -> Trainer:
        """What turns rows into an adapter."""
        assert self.directory is not None
        return SupervisedTrainer(self.lora or lora_settings(self.directory))

    def about(self) -> dict[str, Any]:
        """What the provenance of an adapter says beside the training's own settings."""
        return {}

    # The steps of an iteration

    def roll_out(self, program: SearchProgram, tasks: list[Task], k: int) -> list[TaskResult]:
        """Search `tasks` with the weights so far. Raises StlError where every one failed."""
        roller = self.roller(program)

        def progress(status: Status) -> None:
            if self.callback:
                self.callback.on_progress(k, "rollouts", status.done, status.total, status.detail)

        results = engine.run_sync(engine.run_tasks(
            roller, tasks, seed=self.seed + 1000 * k, in_flight=self.in_flight, concurrency=self.concurrency,
            executor=self.executor, progress=progress, journal=self.run_dir / f"rollouts-{k}.jsonl",
            share_judgements=self.shares_judgements(program), keep_trees=True))
        failed = [result for result in results if result.error]
        if len(failed) == len(results):
            raise StlError(f"all {len(failed)} rollouts failed; the first: {failed[0].error}")
        if failed:
            warnings.warn(f"iteration {k}: {len(failed)} of {len(results)} rollouts failed and train nothing; the "
                          f"first: {failed[0].error}", RuntimeWarning, stacklevel=2)
        return results

    def shares_judgements(self, program: SearchProgram) -> bool:
        """Whether one judgement of a state serves all rollouts of an iteration."""
        return program.environment.task_free_values

    def fine_tune(self, student: SearchProgram, datasets: Mapping[int | None, Dataset], weights: Path, k: int,
                  previous: Sequence[Tuned]) -> list[Tuned]:
        """One adapter per data set."""
        before = {one.depth: one.adapter for one in previous} if self.start == "continue" else {}
        predictor, tuned = self.tunes(student), []
        for i, (depth, dataset) in enumerate(datasets.items()):
            suffix = f"{k}" if depth is None else f"{k}-d{depth}"
            out, data = self.run_dir / f"adapter-{suffix}", self.run_dir / f"data-{suffix}"
            if not out.exists():
                dataset.save(data)

            def progress(step: int, steps: int, i: int = i) -> None:
                if self.callback:
                    self.callback.on_progress(k, "training", i * steps + step, len(datasets) * steps)

            self.trainer().train(dataset, weights, out, seed=self.seed + k,
                                 progress=progress, continue_from=before.get(depth),
                                 provenance={"base": base_name(predictor.model.name), "iteration": k, "depth": depth,
                                             **self.about()})
            dataset.save(data)  # a refused training leaves what the adapter at hand was trained on
            name = version_name(predictor, k, out, depth, self.role)
            models.register_adapter(name, out, None if isinstance(predictor.spec, str) else base_model(predictor))
            tuned.append(Tuned(depth, name, out, dataset))
        return tuned

    def check(self, student: SearchProgram,
              trainset: Sequence[Task | str | dspy.Example]) -> tuple[list[Task], Path]:
        """The tasks and the tuned model's weights. Raises StlError, before any work, for what cannot be done."""
        if not trainset:
            raise StlError("the training set is empty; pass at least one task")
        model = self.tunes(student).model
        weights = self.weights or model.weights()
        if weights is None:
            raise ModelError(f"{model.name} cannot be tuned from here; pass weights=DIRECTORY with the model's "
                             "config, safetensors and tokenizer")
        if not (weights / "config.json").is_file():
            raise ModelError(f"weights={str(weights)!r} is no model directory: it has no config.json")
        self.directory = weights
        self.trainer().check(weights)
        student.check()
        return [student.environment.as_task(entry) for entry in trainset], weights


def version_name(predictor: Predictor, k: int, adapter: Path, depth: int | None = None, role: str = "value") -> str:
    """The name that serves an adapter: BASE@value-v1-HASH, or BASE@value-d2-v1-HASH where there is one per depth."""
    where = "" if depth is None else f"d{depth}-"
    return f"{base_name(predictor.model.name)}@{role}-{where}v{k}-{adapter_hash(adapter)[:10]}"


def base_model(predictor: Predictor) -> Any:
    """The model that a new adapter of the predictor's is served by."""
    model = predictor.model
    return getattr(model, "base", model)


def take(tasks: list[Task], start: int, count: int) -> list[Task]:
    """`count` distinct tasks from `start` on, wrapping round."""
    count = min(count, len(tasks))
    return [tasks[(start + i) % len(tasks)] for i in range(count)]


def shuffled(tasks: Sequence[Task], seed: int) -> list[Task]:
    """The tasks in an order that depends on `seed` alone."""
    order = list(tasks)
    random.Random(seed).shuffle(order)
    return order
