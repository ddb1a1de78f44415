"""How costs grow with the work: each row is a ratio of two sizes in one run, or bytes a task."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.benchmarks.face import Row, at_most, median_and_spread
from experiments.benchmarks.tree import Bare
from stl_programs import Budget, GreedySearch, LegalMoves, Status, Uniform, Value, run_sync, run_tasks
from stl_programs.records import State, Task, TaskResult
from stl_programs.testing.scripted import ScriptedModel
from stl_programs.tree import Tree

PAIRS = 5
TASKS = 16_000
WAITING, FEW = 4_000, 100
BOUND = 10_000
"""Tokens that a call reserves. It uses some dozens."""


REPLY = "[[ ## rationale ## ]]\nso\n\n[[ ## score ## ]]\n5\n\n[[ ## completed ## ]]"


class Short(Bare):
    """One step, one successor: a task is next to nothing but what the engine does for it."""

    name = "short"
    max_depth, branching = 1, 1


class Forgetful(ScriptedModel):
    """Judges everything alike; keeps the last request, or all."""

    def __init__(self, keep: int | None = 1):
        super().__init__("scripted/fair", lambda messages, seed: REPLY, latency=lambda seed: 0.0)
        self.requests = deque(maxlen=keep)  # type: ignore[assignment]


def judged(env: Bare, model: ScriptedModel, max_tokens: int = 60) -> GreedySearch:
    """One call a task."""
    return GreedySearch(env, LegalMoves(), Value(env.value_signature, model, samples=1, max_tokens=max_tokens))


def numbered(env: Bare, count: int) -> list[Task]:
    return [env.task(str(number)) for number in range(count)]


def cpu(work: Callable[[], Any], collector: bool = True) -> float:
    """CPU seconds of all threads. Python's cyclic collector does not walk what is there already, or is off."""
    gc.collect()
    gc.freeze()
    if not collector:
        gc.disable()
    started = time.process_time()
    try:
        work()
        return time.process_time() - started
    finally:
        gc.enable()
        gc.unfreeze()


def children_of_one_node() -> list[Row]:
    """40,000 children of one node against 1,000, per child."""
    def add(nodes: int, children: int) -> None:
        for _ in range(nodes):
            tree = Tree(Task("t", "t"), State("root", "root"))
            for number in range(children):
                tree.add(tree.root, "move", State("state", str(number)))

    figure, spread = median_and_spread(cpu(lambda: add(1, 40_000)) / cpu(lambda: add(40, 1_000)) for _ in range(PAIRS))
    return [at_most("40,000 children of one node against 1,000, per child", figure, 1.5, "x", spread)]


def progress() -> list[Row]:
    """16,000 tasks with a progress callback against none."""
    env, told = Short(), deque[Status](maxlen=1)
    program, tasks = GreedySearch(env, LegalMoves(), Uniform()), numbered(env, TASKS)

    def search(callback: Callable[[Status], None] | None) -> float:
        return cpu(lambda: run_sync(run_tasks(program, tasks, progress=callback)))

    ratios = [search(told.append) / search(None) for _ in range(PAIRS)]
    assert told[0].done == told[0].total == TASKS, told
    figure, spread = median_and_spread(ratios)
    return [at_most(f"progress over {TASKS:,} tasks, CPU with against without", figure, 1.05, "x", spread)]


def wait_for_budget(count: int, budget: bool = True, collector: bool = True) -> tuple[float, list[int]]:
    """CPU seconds a call of `count` calls that wait for one budget, and the tasks in the order they were served."""
    env, model = Short(), Forgetful(keep=None)
    tasks, program = numbered(env, count), judged(env, model, BOUND)
    limit = Budget(tokens=8 * (BOUND + 2_000) + 200 * count) if budget else None
    seconds = cpu(lambda: run_sync(run_tasks(program, tasks, budget=limit, concurrency=count, in_flight=count)),
                  collector)
    assert len(model.requests) == count, f"{len(model.requests)} of {count} calls fitted the budget"
    return seconds / count, [_task(messages) for messages, _ in model.requests]


def _task(messages: str) -> int:
    """The task in a prompt, a number on the line below its head."""
    return int(messages.rpartition(r"[[ ## task ## ]]\n")[2].partition(r"\n")[0])


def waiting_for_a_budget() -> list[Row]:
    """4,000 calls waiting for a budget against 100, per call; and in which order they are served.

    With 4,000 tasks open the cyclic collector has more to walk, whether they wait for a budget or not: it is off in the
    first row, and stands beside with and without a budget.
    """
    ratios: dict[tuple[bool, bool], list[float]] = {(True, False): [], (True, True): [], (False, True): []}
    passed = 0
    for (budget, collector), found in ratios.items():
        for _ in range(PAIRS):
            repeats = WAITING // FEW
            few = sum(wait_for_budget(FEW, budget, collector)[0] for _ in range(repeats)) / repeats
            many, order = wait_for_budget(WAITING, budget, collector)
            found.append(many / few)
            passed += sum(b < a for a, b in itertools.pairwise(order)) if budget else 0
    (figure, spread), (beside, beside_spread), (open_, open_spread) = map(median_and_spread, ratios.values())
    name = f"{WAITING:,} calls waiting for a budget against {FEW}, CPU a call"
    return [at_most(name, figure, 1.2, "x", spread),
            Row(f"{name}, with Python's collector", beside, "x", spread=beside_spread),
            Row(f"{WAITING:,} tasks open against {FEW}, without a budget, with Python's collector", open_, "x",
                spread=open_spread),
            at_most("calls that passed one of an earlier task while they waited", passed, 0, "calls",
                    f"of {2 * PAIRS * WAITING:,}")]


def held(count: int) -> tuple[int, int]:
    """Bytes that a run of `count` tasks holds at its end beside its results, and bytes of the results."""
    env, at_end = Short(), list[int]()

    def weigh() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def at_the_end(status: Status) -> None:
        if status.done == status.total and not at_end:
            at_end.append(weigh())

    async def main(path: Path) -> list[TaskResult]:
        results = await run_tasks(judged(env, Forgetful()), numbered(env, count), journal=path, progress=at_the_end)
        await asyncio.sleep(0)
        return results

    tracemalloc.start()
    try:
        before = weigh()
        with tempfile.TemporaryDirectory() as folder:
            results = run_sync(main(Path(folder) / "journal.jsonl"))
        after = weigh()
        assert not any(result.error for result in results), results[0]
        return at_end[0] - after, after - before
    finally:
        tracemalloc.stop()


def memory() -> list[Row]:
    """5,000 tasks with a journal, without trees: what a run holds a task beside its result."""
    held(100)
    (few, small), (many, large) = held(500), held(5_000)
    note = "5,000 tasks against 500, one call each, journaled"
    return [at_most("memory that a run holds a finished task beside its result", (many - few) / 4_500, 500, "bytes",
                    note),
            Row("memory of its result", (large - small) / 4_500, "bytes", spread=note)]
