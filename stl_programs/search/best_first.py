"""Best-first search: always expand the most promising open state. What is promising is a plug-in."""

from __future__ import annotations

import heapq
from collections.abc import Coroutine
from typing import Any

from stl_programs import engine
from stl_programs.construct import Count, Threshold, checked
from stl_programs.environments.base import Environment
from stl_programs.policies import BasePolicy
from stl_programs.search.base import SearchProgram
from stl_programs.search.parts import Priority, best_judged, by_value, score_of
from stl_programs.tree import Node, Tree
from stl_programs.values import BaseValue


class BestFirstSearch(SearchProgram):
    """Expand the open state of highest priority, `expansions` times, or until a finished state is good enough.

    Args:
        expansions: states expanded, at most.
        priority: `priority(node, tree) -> float`; the node's value by default. It is asked once per node. A saved
            program names the function; load it into a program that was built with the same one.
        enough: stop when a finished state scores this much; the scale's top by default, infinity to never stop early.
        parallel: states being expanded at once in one tree. Above 1 the order depends on timing.

    Example:
        >>> BestFirstSearch(env, policy, value, expansions=20, priority=lambda node, tree: -node.depth)
    """

    settings = ("expansions", "priority", "enough", "parallel")

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, expansions: Count = 30,
                 priority: Priority = by_value, enough: Threshold | None = None, parallel: Count = 1, **options: Any):
        super().__init__(environment, policy, value, **options)
        self.expansions, self.priority, self.parallel = expansions, priority, parallel
        self.enough = environment.scale.top if enough is None else enough

    async def grow(self, tree: Tree) -> None:
        heap = [(0.0, 0, tree.root)]
        seen, begun, finished = {tree.root.state.key}, 0, float("-inf")

        def begin() -> Coroutine[Any, Any, None] | None:
            nonlocal begun
            if not heap or begun == self.expansions or finished >= self.enough:
                return None
            begun += 1
            return grow_at(heapq.heappop(heap)[2])

        async def grow_at(node: Node) -> None:
            nonlocal finished
            node.kept = True
            for child in await self.expand(tree, node):
                if child.state.key in seen:
                    continue
                seen.add(child.state.key)
                if child.state.terminal:
                    child.kept, finished = True, max(finished, score_of(child))
                elif child.depth < self.environment.max_depth:
                    heapq.heappush(heap, (-self.priority(child, tree), child.id, child))

        await engine.rolling(begin, self.parallel)

    def choose(self, tree: Tree) -> Node:
        """The best finished state by its own value; without one, the best judged state."""
        leaf = best_judged(self, tree)
        for node in tree.path(leaf):
            node.kept = True
        return leaf
