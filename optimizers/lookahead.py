"""From search trees to lookahead examples: equations 3 to 5 of the paper. Never reads a reward."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from signatures import NO_ACTION
from stl_programs.tree import Node, Tree


@dataclass(frozen=True)
class LookaheadExample:
    """What a tuned value is to say of one state.

    `target` is y = gamma * max V(s') on the environment's scale (equation 3), or V(s) for a terminal state. `action`,
    `next_state` and `rationale` are the action-outcome rationale (equation 4).
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

    @property
    def terminal(self) -> bool:
        return self.action == NO_ACTION


def lookahead(trees: Iterable[Tree], *, gamma: float = 1.0, terminal_states: bool = True,
              seed: int = 0) -> tuple[list[LookaheadExample], Counter[str]]:
    """One example per expanded state, and per judged terminal state where `terminal_states`.

    Of equally good actions one is drawn. Returns the examples and how many states gave none, by reason.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma}: a discount is above 0 and at most 1")
    examples: list[LookaheadExample] = []
    dropped: Counter[str] = Counter()
    for tree in trees:
        rng = random.Random(f"{seed}/{tree.task.id}")
        for node in tree.nodes:
            if node.estimate is not None and node.estimate.missing:
                dropped["the state itself could not be judged"] += 1
            elif node.expanded:
                best = _best_successor(tree, node, rng)
                if best is None or best.estimate is None or best.estimate.score is None:
                    dropped["no successor with an estimate"] += 1
                else:
                    examples.append(_example(tree, node, best.action or "", best.state.text, best.state.key,
                                             best.estimate.rationale, gamma * best.estimate.score))
            elif node.state.terminal and terminal_states:
                if node.estimate is not None and node.estimate.score is not None:
                    examples.append(_example(tree, node, NO_ACTION, NO_ACTION, NO_ACTION, node.estimate.rationale,
                                             node.estimate.score))
    return examples, dropped


def _best_successor(tree: Tree, node: Node, rng: random.Random) -> Node | None:
    """argmax over a of V(T(s, a)), equation 5."""
    judged = [child for child in tree.children(node) if child.estimate is not None and child.estimate.score is not None]
    if not judged:
        return None
    top = max(child.estimate.score for child in judged)  # type: ignore[union-attr, type-var]
    return rng.choice([child for child in judged if child.estimate.score == top])  # type: ignore[union-attr]


def _example(tree: Tree, node: Node, action: str, next_state: str, next_key: object, rationale: str,
             target: float) -> LookaheadExample:
    return LookaheadExample(tree.task.text, node.state.text, str(node.state.key), node.state.trajectory, node.depth,
                            action, next_state, str(next_key), rationale, target)
