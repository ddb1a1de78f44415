"""Monte Carlo tree search with a model's value as the proxy reward (paper, section 5 and appendix C)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from stl_programs import engine
from stl_programs.construct import Count, NotNegative, checked
from stl_programs.environments.base import Environment
from stl_programs.policies import BasePolicy
from stl_programs.search.base import SearchProgram
from stl_programs.search.parts import (
    BACKUPS,
    SELECTIONS,
    Backup,
    Selection,
    descend_by_uct,
    named,
    open_children,
)
from stl_programs.tree import Node, Tree
from stl_programs.values import BaseValue


class MCTS(SearchProgram):
    """Select, expand, evaluate, back up, `simulations` times.

    A simulation descends to a leaf by Q + c sqrt(2 ln N / n), proposes and judges all its successors together, and
    backs up the value of the best one (with `rollout`, of the end of the greedy trajectory from there). A node's own
    estimate counts as its first visit. States without anything left to learn below them are not entered again.

    Args:
        simulations: at most this many; fewer where the whole tree is known, or a budget is spent.
        exploration: c, for values in [0, 1].
        selection: the rule of a descent: "uct", "puct" (with the policy's log-probabilities), or a function like those
            of `search.parts`.
        backup: what Q is: the "mean" of what was backed up, its "max", half of each ("hybrid"), or such a function.
        rollout: go on greedily to the end of the task before backing up.
        parallel: simulations under way at once in one tree, at most; one more is begun for every 8 that are finished,
            as simulations begun blindly mislead those after them. They count as visits whose value is not known yet
            (WU-UCT: N and n include them, Q does not). Above 1 the outcome depends on timing.

    Example:
        >>> MCTS(env, policy, value, simulations=30, parallel=8, budget=Budget(dollars=0.10))(task="4 5 6 10")
    """

    settings = ("simulations", "exploration", "selection", "backup", "rollout", "parallel")

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, simulations: Count = 30,
                 exploration: NotNegative = 1.0, selection: str | Selection = "uct", backup: str | Backup = "mean",
                 rollout: bool = False, parallel: Count = 1, **options: Any):
        super().__init__(environment, policy, value, **options)
        named(selection, SELECTIONS, "selection")
        named(backup, BACKUPS, "backup")
        self.simulations, self.exploration, self.selection, self.backup = simulations, exploration, selection, backup
        self.rollout, self.parallel = rollout, parallel

    async def grow(self, tree: Tree) -> None:
        root = tree.root

        def begin() -> Coroutine[Any, Any, None] | None:
            if root.in_flight > root.visits // 8 or root.visits + root.in_flight == self.simulations:
                return None
            path = self.select(tree)
            return None if path is None else self.simulate(tree, path)

        await engine.rolling(begin, self.parallel)

    def select(self, tree: Tree) -> list[Node] | None:
        """The path to a leaf that no simulation is working on; None where there is none. Counts it as in flight."""
        root = tree.root
        if root.closed or (root.in_flight and not root.expanded):
            return None
        usual = self.selection == "uct" and self.backup == "mean"
        path = descend_by_uct(tree.nodes, root, self.exploration) if usual else self._descend(tree.nodes, root)
        for node in path or ():
            node.in_flight += 1
        return path

    def _descend(self, nodes: list[Node], root: Node) -> list[Node] | None:
        bonus, q_of = named(self.selection, SELECTIONS, "selection"), named(self.backup, BACKUPS, "backup")
        path = [root]
        while path[-1].expanded:
            children = open_children(nodes, path[-1])
            if not children:
                return None
            scores = bonus(path[-1], children, q_of(children), self.exploration)
            path.append(children[scores.index(max(scores))])
        return path

    async def simulate(self, tree: Tree, path: list[Node]) -> None:
        """Expand the end of `path`, go on to the best successor (with `rollout`, to the end), and back that up."""
        deepest = self.environment.max_depth
        try:
            while not path[-1].state.terminal and path[-1].depth < deepest:
                children = [child for child in await self.expand(tree, path[-1]) if not child.in_flight]
                if not children:
                    break
                path += self.best(tree, children, 1)
                path[-1].in_flight += 1
                if not self.rollout:
                    break
        except BaseException:
            for node in path:
                node.in_flight -= 1
            raise
        self.back_up(tree, path, path[-1].worth)

    def back_up(self, tree: Tree, path: list[Node], value: float) -> None:
        """Count `value` at every node of `path`, and close what has nothing left to learn below it."""
        for node in path:
            node.in_flight -= 1
            node.visits += 1
            node.value_sum += value
            if value > node.value_max:
                node.value_max = value
        nodes, deepest = tree.nodes, self.environment.max_depth
        for node in reversed(path):
            node.closed = node.state.terminal or node.depth >= deepest or (
                node.expanded and all(nodes[i].closed for i in node.children))
            if not node.closed and node.expanded:
                break

    def choose(self, tree: Tree) -> Node:
        """The best finished state by its own value; without one, the end of the most visited path."""
        leaves = [node for node in tree.nodes if node.state.terminal]
        if leaves:
            [leaf] = self.best(tree, leaves, 1)
        else:
            leaf = tree.root
            while leaf.children:
                leaf = max(tree.children(leaf), key=lambda node: (node.visits, node.worth))
        for node in tree.path(leaf):
            node.kept = True
        return leaf
