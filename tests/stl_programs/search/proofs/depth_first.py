"""Depth-first search with a threshold: Tree of Thoughts (Yao et al., 2023), algorithm 2."""

from __future__ import annotations

from stl_programs import SearchProgram


class DepthFirst(SearchProgram):
    """Go on with the best successor while it is worth at least `threshold` (of [0, 1]), else come back to an earlier.

    Ends with the first finished state that is good enough, or after `expansions`.
    """

    settings = ("threshold", "expansions")

    def __init__(self, environment, policy, value, *, threshold=0.5, expansions=50, **options):
        super().__init__(environment, policy, value, **options)
        self.threshold, self.expansions = threshold, expansions

    async def grow(self, tree):
        stack, seen, left = [tree.root], {tree.root.state.key}, self.expansions
        while stack and left:
            node = stack.pop()
            node.kept = True
            if node.state.terminal:
                return
            if node.depth == self.environment.max_depth:
                continue
            left -= 1
            for child in sorted(await self.expand(tree, node), key=lambda child: child.worth):
                if child.worth >= self.threshold and child.state.key not in seen:
                    seen.add(child.state.key)
                    stack.append(child)
