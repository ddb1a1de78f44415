"""Beam search: the breadth-first search of Tree of Thoughts, as the paper uses it on Game of 24."""

from __future__ import annotations

from typing import Any

from stl_programs.construct import Count, checked
from stl_programs.environments.base import Environment
from stl_programs.policies import BasePolicy
from stl_programs.search.base import SearchProgram
from stl_programs.search.parts import distinct
from stl_programs.tree import Tree
from stl_programs.values import BaseValue


class BeamSearch(SearchProgram):
    """Expand `width` states a level, judge all successors, keep the best `width` distinct ones.

    The answer is the best finished leaf by the program's own value. A level ends before the next begins: that is the
    algorithm. `expand="all"` also expands, level by level, the states that were judged and not kept: more to learn
    from, the same beam.

    Example:
        >>> BeamSearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24"), width=5)(task="4 5 6 10")
    """

    settings = ("width",)

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, width: Count = 5,
                 **options: Any):
        super().__init__(environment, policy, value, **options)
        self.width = width

    async def grow(self, tree: Tree) -> None:
        beam, level = [tree.root], [tree.root]
        for _ in range(self.environment.max_depth):
            judged = [node for node in level if node.estimate is None or not node.estimate.missing]
            grow = distinct([*beam, *judged]) if self.expand_what == "all" else beam
            families = await self.expand_each(tree, grow)
            level = [child for family in families for child in family]
            of_beam = [child for node in beam for child in tree.children(node)]
            kept = self.best(tree, of_beam, self.width)
            for node in kept:
                node.kept = True
            beam = [node for node in kept if not node.state.terminal]
            if not beam:
                break
