"""How good are answers at equal numbers of calls: our searches against those of treequest and its_hub.

The worlds are `TreeWorld`s, whose best leaf is known; regret is what an answer's leaf is worth less than that. What is
equal for all sides:

- the same worlds, the same fake value (its noise depends on the state alone), the same limit on calls;
- a question for a state's successors is one call and names them all, a judgement of a state is one call;
- an answer that stops before a leaf is completed by first successors, for nothing.

Where a choice had to be made for a peer it was made in its favour: it keeps the successors that were named at each
node of its tree, draws them without repetition, visits finished leaves again for nothing, and its_hub's widths are the
largest that the limit covers. It pays again for a state that it meets again, as it has no memory of states; ours has.
Each side is represented by the algorithm and the settings that did best on other worlds than those that are scored.

AB-MCTS-M is left out: it needs pymc and jax (treequest[abmcts-m]) and samples a posterior by MCMC for each call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from experiments.benchmarks.face import Row, median_and_spread
from experiments.benchmarks.peer_searches import PEERS
from experiments.kit.statistics import paired_difference
from stl_programs import engine
from stl_programs.errors import StlError
from stl_programs.records import State, Task
from stl_programs.search import BeamSearch
from stl_programs.search.base import SearchProgram
from stl_programs.search.best_first import BestFirstSearch
from stl_programs.search.lite_search import LiteSearch
from stl_programs.search.mcts import MCTS
from stl_programs.search.partial_expansion import PartialExpansionSearch
from stl_programs.search.parts import BACKUPS
from stl_programs.testing.tree_world import Calls, TreeWorld, WorldPolicy, WorldValue, uniform
from stl_programs.tree import Node, Tree

TUNING, SCORED = range(1000, 1060), range(7000, 7400)
"""The worlds that algorithms are chosen on, and those that count."""
LIMITS = (50, 100, 200)
"""Calls for one answer."""
NOISE = 0.2
DRAWS = 100_000
"""Of the bootstrap: regrets are real numbers, so that each draw is as long as there are worlds."""
EVER = 100_000
"""Of what only calls are to limit."""

Answer = Callable[[TreeWorld, Task, int], str]
"""(environment, task, limit on calls) -> answer."""


def ours() -> dict[str, Callable[..., SearchProgram]]:
    """Our searches, by a name that says their settings; each is called with environment, policy and value."""
    found: dict[str, Callable[..., SearchProgram]] = {}
    for width in (1, 2, 3, 4, 5, 7):
        found[f"beam search, width {width}"] = partial(BeamSearch, width=width)
    for bonus in (0.0, 0.03, 0.06, 0.08, 0.1, 0.15):
        found[f"best-first, {bonus:g} a level"] = partial(
            BestFirstSearch, expansions=EVER, enough=math.inf, priority=partial(value_and_depth, bonus))
    for backup, c, rollout in product(BACKUPS, (0.02, 0.05, 0.1), (False, True)):
        found[f"MCTS, {backup}, c {c:g}{', rollout' if rollout else ''}"] = partial(
            MCTS, simulations=EVER, backup=backup, exploration=c, rollout=rollout)
    for progress in (0.3, 0.5, 1.0):
        found[f"LiteSearch, progress {progress:g}"] = partial(
            LiteSearch, expansions=EVER, progress=progress, enough=math.inf)
    for progress, decay in product((0.3, 0.4, 0.5), (0.02, 0.04)):
        found[f"partial expansion, progress {progress:g}, decay {decay:g}"] = partial(
            PartialExpansionSearch, judgements=EVER, progress=progress, decay=decay, enough=math.inf)
    return found


def value_and_depth(bonus: float, node: Node, tree: Tree) -> float:
    """A priority: the node's value, and `bonus` for each level."""
    return node.worth + bonus * node.depth


def our_regrets(make: Callable[..., SearchProgram], environment: TreeWorld, worlds: Sequence[int],
                limit: int) -> np.ndarray:
    """Regret of one of our searches in each world."""
    calls = Calls(limit)
    program = make(environment, WorldPolicy(calls), WorldValue(NOISE, calls=calls))
    tasks = [environment.task(str(world)) for world in worlds]
    results = engine.run_sync(engine.run_tasks(program, tasks, concurrency=1))
    assert max(calls.made.values()) <= limit
    return _regrets(environment, tasks, results)


def _regrets(environment: TreeWorld, tasks: Sequence[Task], results: Sequence[engine.TaskResult]) -> np.ndarray:
    for result in results:
        if result.error or result.answer is None:
            raise StlError(f"world {result.task}: {result.error}")
    return np.array([environment.regret(task, str(result.answer))
                     for task, result in zip(tasks, results, strict=True)])


def peer_regrets(answer: Answer, environment: TreeWorld, worlds: Sequence[int], limit: int) -> np.ndarray:
    """Regret of a peer's search in each world."""
    tasks = [environment.task(str(world)) for world in worlds]
    return np.array([environment.regret(task, answer(environment, task, limit)) for task in tasks])


@dataclass(frozen=True)
class Chosen:
    """The search that did best on the tuning worlds."""

    name: str
    regrets: Callable[..., np.ndarray]
    """Of given worlds."""


def choose(environment: TreeWorld, limit: int) -> tuple[Chosen, dict[str, Chosen]]:
    """Our best search, and the best of each peer, on the tuning worlds."""
    best = _best([Chosen(name, partial(our_regrets, make, environment, limit=limit)) for name, make in ours().items()])
    theirs = {peer: _best([Chosen(name, partial(peer_regrets, answer, environment, limit=limit))
                           for name, answer in searches().items()]) for peer, searches in PEERS.items()}
    return best, theirs


def _best(candidates: Sequence[Chosen]) -> Chosen:
    return min(candidates, key=lambda one: one.regrets(TUNING).mean())


def compare(transpositions: float, better: bool) -> list[Row]:
    """Rows for one kind of world: each side's regret, and the paired difference to the better peer."""
    environment, rows = TreeWorld(transpositions=transpositions), []
    for limit in LIMITS:
        where = f"{limit} calls, {transpositions:.0%} transpositions"
        best, theirs = choose(environment, limit)
        mine = best.regrets(SCORED)
        rows.append(_regret(f"regret, {where}: ours ({best.name})", mine))
        scored = {f"{peer} ({chosen.name})": chosen.regrets(SCORED) for peer, chosen in theirs.items()}
        rows += [_regret(f"regret, {where}: {name}", regrets) for name, regrets in scored.items()]
        name, regrets = min(scored.items(), key=lambda one: one[1].mean())
        gap = paired_difference(mine, regrets, draws=DRAWS)
        holds = gap.high < 0 if better else gap.low <= 0
        rows.append(Row(f"ours minus {name.partition(' (')[0]}, {where}", gap.mean, "regret",
                        "below 0" if better else "not above 0", bool(holds),
                        f"{gap.low:.4f} to {gap.high:.4f}, 95% of {len(SCORED)} worlds"))
    return rows


def _regret(name: str, regrets: np.ndarray) -> Row:
    return Row(name, float(regrets.mean()), "", spread=f"mean; {median_and_spread(regrets)[1]}")


def regret_at_equal_calls() -> list[Row]:
    """Ours is not worse than the better peer where a fifth of the successors are transpositions."""
    return compare(0.2, better=False)


def regret_where_states_repeat() -> list[Row]:
    """Ours is better than the better peer where half of the successors are transpositions."""
    return compare(0.5, better=True)


SIMULATIONS, PARALLEL = 300, 32
CALLS = {800: SCORED, 3000: SCORED[:100]}
"""Limits on calls, and the worlds that each is scored on."""


def latency(state: State) -> float:
    """Seconds of a judgement: log-normal around a millisecond, hashed from the state."""
    first, second = uniform(f"latency/{state.key}", 2)
    return 0.001 * math.exp(0.5 * math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second))


def parallel_regrets(environment: TreeWorld, tasks: Sequence[Task], parallel: int, simulations: int,
                     limit: int | None) -> tuple[np.ndarray, float]:
    """Regrets of MCTS with `parallel` simulations under way, and its calls per world."""
    calls = Calls(limit)
    program = MCTS(environment, WorldPolicy(calls), WorldValue(NOISE, calls=calls, latency=latency),
                   simulations=simulations, exploration=0.1, parallel=parallel)
    results = engine.run_sync(engine.run_tasks(program, tasks, concurrency=10))
    return _regrets(environment, tasks, results), sum(calls.made.values()) / len(tasks)


def regret_of_parallel_simulations() -> list[Row]:
    """MCTS with 32 simulations under way has the regret of one at a time, after equally many simulations or calls."""
    environment, rows = TreeWorld(transpositions=0.2), list[Row]()
    for what, simulations, limit, worlds in (
            (f"{SIMULATIONS} simulations", SIMULATIONS, None, SCORED),
            *((f"{calls} calls", EVER, calls, worlds) for calls, worlds in CALLS.items())):
        tasks = [environment.task(str(world)) for world in worlds]
        (one, one_calls), (many, many_calls) = (
            parallel_regrets(environment, tasks, parallel, simulations, limit) for parallel in (1, PARALLEL))
        gap = paired_difference(many, one, draws=DRAWS)
        rows += [_regret(f"regret of MCTS, {what}, one at a time ({one_calls:.0f} calls a world)", one),
                 _regret(f"regret of MCTS, {what}, {PARALLEL} at once ({many_calls:.0f} calls a world)", many),
                 Row(f"{PARALLEL} at once minus one at a time, {what}", gap.mean, "regret", "0 within the interval",
                     bool(gap.low <= 0 <= gap.high), f"{gap.low:.4f} to {gap.high:.4f}, 95% of {len(tasks)} worlds")]
    return rows


BENCHMARKS = {"regret_at_equal_calls": regret_at_equal_calls,
              "regret_where_states_repeat": regret_where_states_repeat,
              "regret_of_parallel_simulations": regret_of_parallel_simulations}
