"""What searches are composed of: functions of one type each, so that a paper's method is a choice among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import exp, inf, log, sqrt
from typing import Any, Protocol, TypeVar

from stl_programs.environments.base import Environment
from stl_programs.tree import Node, Tree

Backup = Callable[[Sequence[Node]], list[float]]
"""children -> what each is worth by what was backed up through it (its Q), in [0, 1]."""
Selection = Callable[[Node, Sequence[Node], list[float], float], list[float]]
"""(parent, children, their Q, exploration constant) -> a score each; the highest is gone to."""
Priority = Callable[[Node, Tree], float]
"""How soon a node is to be expanded: higher goes first."""


class Chooser(Protocol):
    """What a final choice needs of a search program."""

    environment: Environment

    def best(self, tree: Tree, nodes: list[Node], count: int) -> list[Node]:
        """The `count` best nodes of distinct states."""


FinalChoice = Callable[[Chooser, Tree], Node]
"""The leaf that is answered with."""

Part = TypeVar("Part")


def named(part: str | Part, parts: Mapping[str, Part], what: str) -> Part:
    """A part by its name, or the function itself. Raises ValueError for a name that is none."""
    if not isinstance(part, str):
        return part
    if part not in parts:
        raise ValueError(f"{what}={part!r}: choose {', '.join(map(repr, parts))}, or pass a function")
    return parts[part]


# Backup: a child's own estimate counts as its first visit

def mean(children: Sequence[Node]) -> list[float]:
    """The mean of the estimate and of all that was backed up."""
    return [(child.worth + child.value_sum) / (child.visits + 1) for child in children]


def highest(children: Sequence[Node]) -> list[float]:
    """The best that was backed up."""
    return [child.value_max if child.visits else child.worth for child in children]


def hybrid(children: Sequence[Node]) -> list[float]:
    """Half of each."""
    return [(q + top) / 2 for q, top in zip(mean(children), highest(children), strict=True)]


BACKUPS: dict[str, Backup] = {"mean": mean, "max": highest, "hybrid": hybrid}
"""By name, as a saved program says it."""


# Selection: Q, and a bonus for what is little known

def uct(parent: Node, children: Sequence[Node], q: list[float], c: float) -> list[float]:
    """Q + c sqrt(2 ln N / n) (Kocsis and Szepesvari, 2006). Simulations in flight count as visits (WU-UCT)."""
    explore = c * sqrt(2.0 * log(parent.visits + parent.in_flight + 1))
    return [worth + explore / sqrt(child.visits + 1 + child.in_flight)
            for child, worth in zip(children, q, strict=True)]


def open_children(nodes: Sequence[Node], parent: Node) -> list[Node]:
    """The children below which something is left to learn, and that no simulation is expanding."""
    return [child for i in parent.children
            if not ((child := nodes[i]).closed or (child.in_flight and not child.expanded))]


def descend_by_uct(nodes: Sequence[Node], root: Node, c: float) -> list[Node] | None:
    """From `root` to a leaf by the highest `uct` of the `mean` among open children, in one pass: what simulations do
    most. None where there is no open child."""
    node, path = root, [root]
    while node.expanded:
        best, top = None, -inf
        explore = c * sqrt(2.0 * log(node.visits + node.in_flight + 1))
        for i in node.children:
            child = nodes[i]
            flying = child.in_flight
            if child.closed or (flying and not child.expanded):
                continue
            n = child.visits + 1
            score = (child.worth + child.value_sum) / n + explore / sqrt(n + flying)
            if score > top:
                best, top = child, score
        if best is None:
            return None
        path.append(best)
        node = best
    return path


def puct(parent: Node, children: Sequence[Node], q: list[float], c: float) -> list[float]:
    """Q + c P sqrt(N) / (1 + n) (AlphaZero), P the policy's probability of the action among its siblings."""
    explore = c * sqrt(parent.visits + parent.in_flight + 1)
    return [worth + explore * child.prior / (1 + child.visits + child.in_flight)
            for child, worth in zip(children, q, strict=True)]


SELECTIONS: dict[str, Selection] = {"uct": uct, "puct": puct}
"""By name, as a saved program says it."""


def set_priors(children: Sequence[Node]) -> None:
    """The policy's probabilities, made to sum to 1 over the children; one without takes the lowest that is known."""
    known = [child.logprob for child in children if child.logprob is not None] or [0.0]
    low, top = min(known), max(known)
    weights = [exp((low if child.logprob is None else child.logprob) - top) for child in children]
    total = sum(weights)
    for child, weight in zip(children, weights, strict=True):
        child.prior = weight / total


# Priority

def by_value(node: Node, tree: Tree) -> float:
    """The node's own score; a missing one goes last."""
    return score_of(node)


# Final choice

def best_kept_leaf(program: Chooser, tree: Tree) -> Node:
    """The best finished state that was kept, else the best of the deepest states.

    Where a budget ended the search, the deepest may have been judged and not been kept yet.
    """
    nodes = [node for node in tree.nodes if node.kept] + [
        node for node in tree.nodes if not node.kept and node.estimate is not None]
    leaves = [node for node in nodes if node.state.terminal]
    deepest = max(node.depth for node in nodes)
    [leaf] = program.best(tree, [node for node in leaves if node.kept] or leaves or [
        node for node in nodes if node.depth == deepest], 1)
    return leaf


def best_judged(program: Chooser, tree: Tree) -> Node:
    """The best finished state that was judged; without one, the best of all judged states; the root before any."""
    judged = [node for node in tree.nodes if node.estimate is not None]
    [leaf] = program.best(tree, [node for node in judged if node.state.terminal] or judged or [tree.root], 1)
    return leaf


def vote(program: Chooser, tree: Tree, weighted: bool = True) -> Node:
    """The answer of most finished states, each vote weighted by the state's worth: self-consistency with a value."""
    leaves = [node for node in tree.nodes if node.kept and node.state.terminal]
    if not leaves:
        return best_judged(program, tree)
    votes: dict[str, float] = defaultdict(float)
    by_answer: dict[str, list[Node]] = defaultdict(list)
    for leaf in leaves:
        answer = program.environment.answer(tree.task, leaf.state)
        votes[answer] += leaf.worth if weighted else 1.0
        by_answer[answer].append(leaf)
    top = max(votes.values())
    [leaf] = program.best(tree, [node for answer, among in by_answer.items() if votes[answer] == top
                                 for node in among], 1)
    return leaf


# Sameness

def distinct(nodes: list[Node]) -> list[Node]:
    """The first node of every state."""
    first: dict[Any, Node] = {}
    for node in nodes:
        first.setdefault(node.state.key, node)
    return list(first.values())


def score_of(node: Node) -> float:
    """The node's score; a missing or absent one is below all."""
    return -inf if node.estimate is None or (score := node.estimate.score) is None else score
