"""A policy that is told what was tried in a state and what the value said of it, before it proposes the next action."""

from __future__ import annotations

import dspy

from signatures import ProposeActions
from stl_programs import SearchProgram
from stl_programs.situations import Sibling


class ProposeAgain(ProposeActions):
    """Propose an action that avoids what was criticised."""

    siblings: list[str] = dspy.InputField(desc="what was tried here, where it led, and the critique of it")


class Revising(SearchProgram):
    """Greedy search that asks for one action at a time, `tries` in every state, each with the critiques before it."""

    settings = ("tries",)

    def __init__(self, environment, policy, value, *, tries=3, **options):
        super().__init__(environment, policy, value, **options)
        self.tries = tries

    async def grow(self, tree):
        node = tree.root
        while not node.state.terminal and node.depth < self.environment.max_depth:
            for _ in range(self.tries):
                await self.expand(tree, node, count=1)
            if not node.children:
                return
            [node] = self.best(tree, tree.children(node), 1)
            node.kept = True

    def situation(self, tree, node):
        tried = tuple(Sibling(child.action, child.state, child.estimate) for child in tree.children(node))
        return tree.situation(node)._replace(siblings=tried)
