"""What Monte Carlo tree search itself costs, without any model.

All times are CPU seconds and contain Python's cyclic collector. A full pass of it walks everything that the process
has imported, too, and comes when the heap has grown by a quarter. With a large heap of imports a search of 10,000
simulations ends before the first pass, with a smaller one it pays for one. To compare it with a longer search, the
imports are set apart (`gc.freeze`): both then pay for their own objects. The ratio with the imports stands beside.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.bare_uct import BareUct
from experiments.benchmarks.face import Row, at_least, at_most, median_and_spread
from experiments.benchmarks.peer_searches import peer
from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import MCTS, BaseValue, Environment, LegalMoves, run_sync
from stl_programs.records import Action, State, Task, Transition, ValueEstimate
from stl_programs.situations import Situation
from stl_programs.tree import Found
from stl_programs.values import Judged


class Bare(Environment):
    """Next to no work a step: states are numbers, all with one text."""

    name = "bare"
    scale = NumberScale(0.0, 1.0)
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead
    max_depth, branching = 14, 4

    def __init__(self) -> None:
        self.actions = [Action(str(move)) for move in range(self.branching)]

    def task(self, text: str) -> Task:
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        return [self.task("0")]

    def reset(self, task: Task) -> State:
        return State("state", task.text, data=int(task.text))

    def legal_actions(self, state: State) -> list[Action]:
        return self.actions

    def step(self, state: State, action: Action) -> Transition:
        key = (state.data * 6364136223846793005 + int(action.text) * 1442695040888963407 + 1) & 0xFFFFFFFFFFFF
        history = (*state.history, action.text)
        return Transition(State("state", str(key), history, len(history) == self.max_depth, key))

    def answer(self, task: Task, state: State) -> str:
        return "".join(state.history)

    def _score(self, task: Task, answer: str) -> float:
        return 0.0


class Hashed(BaseValue):
    """A number made of the state."""

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        return [ValueEstimate(self.of(one.state)) for one in situations]

    @staticmethod
    def of(state: State) -> float:
        return (state.data >> 20 & 1023) / 1023


def simulate(simulations: int, seed: int) -> tuple[Found, float, float]:
    """A search, its CPU seconds, and how many levels a simulation went down on average."""
    env = Bare()
    program = MCTS(env, LegalMoves(), Hashed(), simulations=simulations)
    gc.collect()
    started = time.process_time()
    found = run_sync(program.search(env.task(str(seed))))
    seconds = time.process_time() - started
    visits = sum(node.visits for node in found.tree.nodes)
    return found, seconds, visits / found.tree.root.visits - 1


def cost(simulations: int, seed: int) -> float:
    """Microseconds of CPU a simulation and level."""
    _, seconds, levels = simulate(simulations, seed)
    return seconds / simulations / levels * 1e6


def bare_cost(simulations: int, seed: int) -> float:
    """The same, of the loop over plain lists."""
    env = Bare()
    tree = BareUct(env, env.task(str(seed)), Hashed.of)
    gc.collect()
    started = time.process_time()
    for _ in range(simulations):
        tree.simulate()
    seconds = time.process_time() - started
    return seconds / simulations / (sum(tree.visits) / tree.visits[0] - 1) * 1e6


def growths() -> tuple[list[float], list[float]]:
    """What 100,000 simulations cost a simulation and level, for ten seeds; and that over what 10,000 cost."""
    small, large = zip(*((cost(10_000, seed), cost(100_000, seed)) for seed in range(10)), strict=True)
    return list(large), [b / a for a, b in zip(small, large, strict=True)]


def simulations() -> list[Row]:
    """100,000 simulations without a model: against a bare loop, bytes a node, and whether it is linear."""
    large, growth_beside_imports = growths()
    gc.freeze()
    try:
        _, growth = growths()
    finally:
        gc.unfreeze()
    bare = [bare_cost(100_000, seed) for seed in range(10)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    found, _, _ = simulate(100_000, 0)
    gc.collect()
    size = (tracemalloc.get_traced_memory()[0] - before) / len(found.tree)
    tracemalloc.stop()
    over, over_spread = median_and_spread(ours / theirs for ours, theirs in zip(large, bare, strict=True))
    figure, spread = median_and_spread(large)
    ratio, ratio_spread = median_and_spread(growth)
    beside, beside_spread = median_and_spread(growth_beside_imports)
    label = "100,000 against 10,000 simulations, per simulation and level"
    return [at_most("100,000 simulations of MCTS against a bare loop over lists, per simulation and level", over, 2,
                    "x", over_spread),
            Row("the same in microseconds of this machine", figure, "microseconds", spread=spread),
            at_most("memory of its tree beside the texts", size, 800, "bytes a node", f"{len(found.tree)} nodes"),
            at_most(label, ratio, 1.5, "x", ratio_spread),
            Row(f"{label}, with what is imported in the collector's heap", beside, "x", spread=beside_spread)]


def treequest_cost(nodes: int, seed: int) -> float:
    """Microseconds of CPU a node of treequest's own loop over the same world, its trees changed in place."""
    env = Bare()
    task, root = env.task(str(seed)), Hashed()
    algorithm = peer("treequest", "StandardMCTS", samples_per_action=env.branching, exploration_weight=1.0)
    children: dict[Any, list[State]] = {}

    def generate(parent: State | None) -> tuple[State, float]:
        state = parent or env.reset(task)
        if state.terminal:
            return state, root.of(state)
        left = children.setdefault(state.key, [])
        if not left:
            left += [env.step(state, action).state for action in env.actions]
        child = left.pop()
        return child, root.of(child)

    gc.collect()
    started, tree = time.process_time(), algorithm.init_tree()
    for _ in range(nodes):
        tree = algorithm.step(tree, {"next": generate}, inplace=True)
    return (time.process_time() - started) / nodes * 1e6


def own_loops() -> list[Row]:
    """The loop of treequest against ours over one world that costs nothing, per node of the tree."""
    nodes, ratios = 10_000, []
    for seed in range(5):
        found, seconds, _ = simulate(nodes // Bare.branching, seed)
        ratios.append(treequest_cost(nodes, seed) / (seconds / len(found.tree) * 1e6))
    figure, spread = median_and_spread(ratios)
    return [at_least(f"treequest's standard MCTS against ours, CPU a node, {nodes:,} nodes", figure, 10, "x", spread)]
