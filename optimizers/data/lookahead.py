"""From search trees to lookahead examples: equations 3 to 5 of the paper. Never reads a reward."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from signatures import NO_ACTION
from stl_programs.construct import Discount, checked
from stl_programs.environments.base import derived_fields
from stl_programs.records import State
from stl_programs.tree import Node, Tree

Closed = Callable[[State], bool]


@dataclass(frozen=True)
class LookaheadExample:
    """What a tuned value is to say of one state.

    `target` is y = gamma * max V(s') on the environment's scale (equation 3), or V(s) for a terminal state. `action`,
    `next_state` and `rationale` are the action-outcome rationale (equation 4); `next_state` is what was observed on
    arriving there, and not the way to it. `inputs`: what the signature asks beside task, trajectory and state. `page`
    names the judge of the state, where the world has several; `before` is the estimate of the state one step earlier,
    which a judge's offset is added to.
    """

    task: str
    state: str
    key: str
    trajectory: str
    depth: int
    action: str
    next_state: str
    next_key: str
    rationale: str
    target: float
    inputs: dict[str, Any] = field(default_factory=dict)
    page: str | None = None
    before: float | None = None

    @property
    def terminal(self) -> bool:
        return self.action == NO_ACTION


@checked
def lookahead(trees: Iterable[Tree], *, gamma: Discount = 1.0, terminal_states: bool = True,
              closed: Closed | None = None, seed: int = 0, asks: Iterable[str] = ()
              ) -> tuple[list[LookaheadExample], Counter[str]]:
    """One example per state whose successors were all judged, and per judged terminal state where `terminal_states`.

    Args:
        closed: states that no example may be about or lead to (what a strict split holds back).
        asks: inputs of the lookahead signatures.

    Of equally good actions one is drawn. Returns the examples and how many states gave none, by reason.
    """
    asked = set(asks) - {"task", "trajectory", "state"}
    examples: list[LookaheadExample] = []
    dropped: Counter[str] = Counter()
    for tree in trees:
        rng = random.Random(f"{seed}/{tree.task.id}")
        for node in tree.nodes:
            if closed and closed(node.state):
                dropped["closed: the state is held back"] += 1
            elif node.estimate is not None and node.estimate.missing:
                dropped["the state itself could not be judged"] += 1
            elif node.expanded and not tree.complete(node):
                dropped["not all successors are known and judged"] += 1
            elif node.expanded:
                best = _best_successors(tree, node)
                allowed = [child for child in best if not (closed and closed(child.state))]
                if not best:
                    dropped["no successor with an estimate"] += 1
                elif not allowed:
                    dropped["closed: every best successor is held back"] += 1
                else:
                    examples.append(_successor_example(tree, node, rng.choice(allowed), gamma, asked))
            elif (node.state.terminal and terminal_states and node.estimate is not None
                  and node.estimate.score is not None):
                examples.append(_example(tree, node, NO_ACTION, NO_ACTION, NO_ACTION, node.estimate.rationale,
                                         node.estimate.score, asked))
    return examples, dropped


def _best_successors(tree: Tree, node: Node) -> list[Node]:
    """All of argmax over a of V(T(s, a)), equation 5; none where no successor could be judged."""
    scored = [(child.estimate.score, child) for child in tree.children(node)
              if child.estimate is not None and child.estimate.score is not None]
    top = max((score for score, _ in scored), default=0.0)
    return [child for score, child in scored if score == top]


def _successor_example(tree: Tree, node: Node, best: Node, gamma: float, asked: set[str]) -> LookaheadExample:
    estimate = best.estimate
    assert estimate is not None and estimate.score is not None and best.action is not None
    return _example(tree, node, best.action, best.observation, best.state.key, estimate.rationale,
                    gamma * estimate.score, asked)


def _example(tree: Tree, node: Node, action: str, next_state: str, next_key: str, rationale: str, target: float,
             asked: set[str]) -> LookaheadExample:
    known = dict(node.inputs or {})
    page = known.pop("page", None)
    if asked - set(known):
        derived = derived_fields(tree.situation(node))
        known = {name: value() if callable(value) else value
                 for name, value in derived.items() if name in asked} | known
    before = None if node.parent is None else tree.nodes[node.parent].estimate
    state, trajectory = known.get("state", node.state.text), known.get("trajectory", node.state.trajectory)
    return LookaheadExample(
        tree.task.id, state, node.state.key, trajectory, node.depth, action, next_state, next_key, rationale, target,
        {name: list(value) if isinstance(value, tuple) else value for name, value in known.items() if name in asked}
        | ({"task": tree.task.text} if tree.task.text != tree.task.id else {}),
        page, None if before is None else before.score)
