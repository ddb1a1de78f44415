"""Greedy search: Algorithm 2 of the paper."""

from __future__ import annotations

from stl_programs.search.base import SearchProgram
from stl_programs.tree import Tree


class GreedySearch(SearchProgram):
    """Take the action whose successor is worth most, until the task ends.

    Example:
        >>> GreedySearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24"))(task="4 5 6 10").answer
    """

    async def grow(self, tree: Tree) -> None:
        node = tree.root
        while not node.state.terminal and node.depth < self.environment.max_depth:
            successors = await self.expand(tree, node)
            if not successors:
                break
            [node] = self.best(tree, successors, 1)  # a_i = argmax_a V(T(s_i, a))
            node.kept = True
