"""Best of n: independent draws to the end of the task, and a vote weighted by the value (Wang et al., 2023)."""

from __future__ import annotations

from stl_programs import SearchProgram, engine
from stl_programs.search.parts import vote


class BestOfN(SearchProgram):
    """`n` trajectories that know nothing of each other; the answer whose ends are worth most in sum wins.

    `weighted=False` counts heads: self-consistency.
    """

    settings = ("n", "weighted")

    def __init__(self, environment, policy, value, *, n=8, weighted=True, **options):
        super().__init__(environment, policy, value, **options)
        self.n, self.weighted = n, weighted

    async def grow(self, tree):
        ends = await engine.together(*(self.draw(tree, i) for i in range(1, self.n + 1)))
        await self.judge(tree, [end for end in ends if end is not None])

    async def draw(self, tree, i):
        """The end of the i-th trajectory; None where the policy had nothing to say."""
        node = tree.root
        while not node.state.terminal and node.depth < self.environment.max_depth:
            node = await self.sample(tree, node, draw=i)
            if node is None:
                return None
        node.kept = True
        return node

    def choose(self, tree):
        return vote(self, tree, self.weighted)
