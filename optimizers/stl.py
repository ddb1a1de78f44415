"""Self-Taught Lookahead: Algorithm 1 of the paper as a dspy optimizer.

For k = 1 ... n (`WeightOptimizer.compile`): search trees with pi and V(k-1) (`roll_out`); examples (s, o_s, y_s) of
every visited state, filtered and merged into D (`datasets`); fine-tune from V(0), or on from V(k-1) (`fine_tune`); the
student with V(k) (`with_adapters`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import dspy

from optimizers.data.lookahead import Closed, LookaheadExample, lookahead
from optimizers.data.rows import Dataset, Filter, Lesson, build_dataset
from optimizers.defaults import StlSettings, lora_settings, stl_settings
from optimizers.loop import Tuned, WeightOptimizer
from optimizers.trainers.sft import LoraSettings
from signatures import Variant, lookahead_variant
from stl_programs.construct import Count, Discount, NotNegative, checked
from stl_programs.engine import TaskResult
from stl_programs.errors import ModelError, StlError
from stl_programs.predictor import Predictor
from stl_programs.records import Task
from stl_programs.search import SearchProgram
from stl_programs.tree import Tree
from stl_programs.values import Aggregate, PerDepth, Value


class SelfTaughtLookahead(WeightOptimizer):
    """Improve a program's value model by its own one-step lookahead: no reward, no demonstration.

    `rollout_aggregate`, `rollout_samples`, `expand`, `others_per_top` and `lora` left out (None) are those that the
    directory of the value model's weights brings (key "training" of its stl_programs.json), else the paper's.

    Args:
        rollout_aggregate: of the draws during rollouts; the compiled program keeps its own for evaluation. The
            paper's: "median".
        rollout_samples: draws per state during rollouts. The paper's: as many as the program's.
        expand: look ahead from the "kept" states of a rollout, as the paper does, or from "all" proposed ones.
        gamma: discount of equation 3.
        variant: what a tuned value says before its score: lv, lv+tr or lv+tr+r.
        merge: keep examples of earlier iterations, the latest label of a state winning (appendix F.4).
        others_per_top: rows below the top score for each row at it, or "all", as in the paper.
        filters: named predicates that drop examples; see `optimizers.data.rows`.
        closed: states that no training row may be about or lead to (a strict split).
        per_depth: one adapter for the states of every depth (appendix D.3), the last one for all deeper; where states
            of one look are worth different things early and late. The compiled value is a `PerDepth`.
        terminal_states: also train on the judgements of terminal states.
        share_judgements: judge a state once per rollout phase, where values do not depend on the task.
        options: of every `WeightOptimizer`: iterations, tasks_per_iteration, run_dir, start, lora, weights, in_flight,
            concurrency, executor, seed, callback.

    Example:
        >>> stl = SelfTaughtLookahead(iterations=2, tasks_per_iteration=50, run_dir="runs/mine")
        >>> compiled = stl.compile(program, trainset=env.tasks("train"))
    """

    @checked
    def __init__(self, *, rollout_aggregate: Aggregate | None = None, rollout_samples: Count | None = None,
                 expand: Literal["kept", "all"] | None = None, gamma: Discount = 1.0, variant: Variant = "lv+tr+r",
                 merge: bool = True, others_per_top: NotNegative | Literal["all"] | None = None,
                 filters: dict[str, Filter] | None = None, closed: Closed | None = None, per_depth: bool = False,
                 terminal_states: bool = True, share_judgements: bool = True, run_dir: str | Path = "runs/stl",
                 **options: Any):
        super().__init__(run_dir=run_dir, **options)
        self._passed: dict[str, Any] = {"rollout_aggregate": rollout_aggregate, "rollout_samples": rollout_samples,
                                        "expand": expand, "others_per_top": others_per_top}
        self._resolved: tuple[StlSettings, LoraSettings] | None = None
        self.gamma, self.variant, self.merge = gamma, variant, merge
        self.closed, self.per_depth, self.filters = closed, per_depth, filters or {}
        self.terminal_states, self.share_judgements = terminal_states, share_judgements
        self._examples: list[LookaheadExample] = []                 # D

    def tunes(self, student: SearchProgram) -> Predictor:
        if not isinstance(student.value, Value):
            raise ModelError(f"the program's value is {type(student.value).__name__}; STL tunes a Value")
        return student.value.predict

    def roller(self, program: SearchProgram) -> SearchProgram:
        """The program with the draws of rollouts, looking ahead from the states that `expand` says."""
        roller, (stl, _) = program.deepcopy(), self.resolved
        for value in roller.value.values if isinstance(roller.value, PerDepth) else [roller.value]:
            value.aggregate = stl.rollout_aggregate
            for predictor in value.predictors_by_page.values():
                predictor.samples = stl.rollout_samples or predictor.samples
        roller.expand_what = stl.expand
        return roller

    def shares_judgements(self, program: SearchProgram) -> bool:
        return self.share_judgements and program.environment.task_free_values

    def datasets(self, student: SearchProgram, rollouts: Sequence[TaskResult], k: int) -> Mapping[int | None, Dataset]:
        """(s, o_s, y_s) of every visited state, filtered, and merged with those of earlier iterations."""
        if k == 1:
            self._examples = []
        environment = student.environment
        lessons = {page: Lesson(judge.lookahead, student.value.scale_of(page, environment), judge.offset)
                   for page, judge in environment.judges.items() if judge.lookahead}
        asks = {name for signature in [environment.lookahead_signature, *(one.signature for one in lessons.values())]
                for name in signature.input_fields}
        trees = [Tree.from_dict(result.tree) for result in rollouts if result.tree]
        found, dropped = lookahead(trees, gamma=self.gamma, terminal_states=self.terminal_states, closed=self.closed,
                                   seed=self.seed, asks=asks)
        datasets = self._filter(student, lessons, found, dropped)
        self._examples = [e for dataset in datasets.values() for e in dataset.examples] if self.merge else []
        return datasets

    def _filter(self, student: SearchProgram, lessons: dict[str, Lesson], found: list[LookaheadExample],
                dropped: Counter[str]) -> dict[int | None, Dataset]:
        """The rows, by the depth whose value they teach; all under None where one value judges every depth."""
        environment, others, earlier = student.environment, self.resolved[0].others_per_top, self._examples

        def build(found: list[LookaheadExample], earlier: list[LookaheadExample], dropped: Counter[str]) -> Dataset:
            return build_dataset(
                found, environment.lookahead_signature, student.value.predict.prompt_format,
                student.value.scale_of(None, environment), variant=self.variant, pages=lessons,
                task_free=environment.task_free_values, earlier=earlier, filters=self.filters,
                others_per_top=None if others == "all" else others, seed=self.seed, dropped=dropped)

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

    def with_adapters(self, student: SearchProgram, tuned: Sequence[Tuned]) -> SearchProgram:
        """The student with V(k)."""
        program: SearchProgram = student.deepcopy()
        values = [tuned_value(student, one.lm, self.variant) for one in tuned]
        program.value = PerDepth(values) if self.per_depth else values[0]
        return program

    def check(self, student: SearchProgram,
              trainset: Sequence[Task | str | dspy.Example]) -> tuple[list[Task], Path]:
        """The tasks and the value model's weights; the settings are then `resolved`.

        Raises StlError, before any work, for what `compile` cannot do.
        """
        tasks, weights = super().check(student, trainset)
        stl = stl_settings(weights, **self._passed)
        stl = replace(stl, rollout_samples=stl.rollout_samples or student.value.predict.samples)
        self._resolved = stl, self.lora or lora_settings(weights)
        return tasks, weights

    def about(self) -> dict[str, Any]:
        return {"stl": asdict(self.resolved[0])}

    @property
    def resolved(self) -> tuple[StlSettings, LoraSettings]:
        """The settings that depend on the model, as this optimizer uses them. Raises StlError before `check`."""
        if self._resolved is None:
            raise StlError("what was not passed depends on the program's model; call check(program, trainset) first")
        return self._resolved

    def settings(self) -> dict[str, Any]:
        """Everything that shapes the result, JSON-ready.

        What depends on the model is as it is used once `check` or `compile` has seen the program; as passed before.
        """
        names = ("iterations", "tasks_per_iteration", "gamma", "variant", "start", "merge", "per_depth",
                 "terminal_states", "share_judgements", "seed")
        stl, lora = (asdict(self._resolved[0]), self._resolved[1]) if self._resolved else (self._passed, self.lora)
        return {name: getattr(self, name) for name in names} | stl | {
            "filters": sorted(self.filters), "closed": self.closed is not None, "lora": asdict(lora) if lora else None}


def tuned_value(student: SearchProgram, name: str, variant: Variant) -> Value:
    """V(k): the student's value with the tuned signatures and the adapter, swapped together."""
    value: Value = student.value.deepcopy()
    environment = student.environment
    for page, predictor in value.predictors_by_page.items():
        signature = environment.lookahead_signature if page is None else environment.judges[page].lookahead
        if signature is not None:
            predictor.signature, predictor.adapter = lookahead_variant(signature, variant), name
            predictor.demos = []
    return value


def value_depth(example: LookaheadExample) -> int:
    """Which of a `PerDepth`'s values judges the example's state: the root counts with the first step."""
    return max(example.depth, 1)
