"""LiteSearch (Wang et al., 2024): the most promising state first, with a budget of children for every state."""

from __future__ import annotations

import heapq
from math import ceil, log
from typing import Any

from stl_programs.construct import Between, Count, NotNegative, Threshold, checked
from stl_programs.environments.base import Environment
from stl_programs.policies import BasePolicy
from stl_programs.search.base import SearchProgram
from stl_programs.search.parts import best_judged, score_of
from stl_programs.tree import Node, Tree
from stl_programs.values import BaseValue


class LiteSearch(SearchProgram):
    """Best-first search whose states get children one by one, the fewer the surer they look.

    A state of value v in [0, 1] is worth ceil(log(1 - confidence) / log(1 - v)) children, at most `most`: as many as
    it takes to see one good continuation with probability `confidence`, were v the chance of each. A state stays open
    until it has them. What is expanded next is the open state of highest progress + value.

    Args:
        expansions: children asked for, in all.
        confidence: of seeing a good continuation among a state's children.
        most: children of one state, at most.
        progress: weight of how far along a state is (its depth over the greatest depth), beside its value.
        enough: stop when a finished state scores this much (the scale's top by default).

    Example:
        >>> LiteSearch(env, policy, value, most=5, budget=Budget(calls=60))(task="4 5 6 10")
    """

    settings = ("expansions", "confidence", "most", "progress", "enough")

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, expansions: Count = 60,
                 confidence: Between = 0.9, most: Count = 5, progress: NotNegative = 0.5,
                 enough: Threshold | None = None, **options: Any):
        super().__init__(environment, policy, value, **options)
        self.expansions, self.confidence, self.most, self.progress = expansions, confidence, most, progress
        self.enough = environment.scale.top if enough is None else enough

    async def grow(self, tree: Tree) -> None:
        heap = [(self.priority(tree.root), 0, tree.root)]
        for _ in range(self.expansions):
            if not heap:
                return
            node = heapq.heappop(heap)[2]
            node.kept, known = True, len(node.children)
            for child in (await self.expand(tree, node, count=1))[known:]:
                child.kept = child.state.terminal
                if child.kept and score_of(child) >= self.enough:
                    return
                if not child.state.terminal and child.depth < self.environment.max_depth:
                    heapq.heappush(heap, (self.priority(child), child.id, child))
            if known < len(node.children) < self.width(node):
                heapq.heappush(heap, (self.priority(node), node.id, node))

    def choose(self, tree: Tree) -> Node:
        """The best finished state by its own value; without one, the best judged state."""
        return best_judged(self, tree)

    def priority(self, node: Node) -> float:
        """Lowest first: minus (progress so far + value to come)."""
        return -(self.progress * node.depth / self.environment.max_depth + node.worth)

    def width(self, node: Node) -> int:
        """How many children `node` is worth."""
        if node.estimate is None or node.worth <= 0:
            return self.most
        return 1 if node.worth >= 1 else min(self.most, ceil(log(1 - self.confidence) / log(1 - node.worth)))
