"""Best-first search by partial expansion: successors are judged one at a time, while a state is worth it."""

from __future__ import annotations

import heapq
from collections.abc import Coroutine
from typing import Any

from stl_programs import engine
from stl_programs.construct import Count, NotNegative, Number, Threshold, checked
from stl_programs.environments.base import Environment
from stl_programs.policies import BasePolicy
from stl_programs.search.base import SearchProgram
from stl_programs.search.parts import best_judged, score_of
from stl_programs.situations import Proposal
from stl_programs.tree import Node, Tree
from stl_programs.values import BaseValue


class PartialExpansionSearch(SearchProgram):
    """Best-first search that pays for successors one by one; for budgets of few judgements.

    All successors of a state are proposed at once. Those that were judged elsewhere in the tree are known for nothing;
    of the others one is judged, and the state queues again for the next, at its own value: its best successor is worth
    what it is worth. So a good successor is followed before its siblings are paid for. (Partial expansion is how
    Yoshizumi, Miura and Ishida, 2000, save memory in A*; here it saves calls.)

    Args:
        judgements: turns of one judgement each, at most.
        progress: weight of how far along a state is (its depth over the greatest depth), beside its value in [0, 1].
        decay: what a state's next turn loses for each successor that is known.
        enough: stop when a finished state scores this much (the scale's top by default, infinity to never stop early).
        parallel: turns of different states under way at once in one tree. Above 1 the order depends on timing.

    Example:
        >>> PartialExpansionSearch(env, policy, value, budget=Budget(calls=50))(task="4 5 6 10")
    """

    settings = ("judgements", "progress", "decay", "enough", "parallel")

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, judgements: Count = 60,
                 progress: Number = 0.4, decay: NotNegative = 0.04, enough: Threshold | None = None,
                 parallel: Count = 1, **options: Any):
        super().__init__(environment, policy, value, **options)
        self.judgements, self.progress, self.decay, self.parallel = judgements, progress, decay, parallel
        self.enough = environment.scale.top if enough is None else enough

    async def grow(self, tree: Tree) -> None:
        deepest = self.environment.max_depth
        queue = [(0.0, 0, tree.root)]
        known = {tree.root.state.key: tree.root}
        waiting: dict[int, list[Proposal]] = {}
        begun, finished = 0, float("-inf")

        def begin() -> Coroutine[Any, Any, None] | None:
            nonlocal begun
            if not queue or begun == self.judgements or finished >= self.enough:
                return None
            begun += 1
            return turn(heapq.heappop(queue)[2])

        async def turn(node: Node) -> None:
            nonlocal finished
            if node.id not in waiting:
                node.kept, waiting[node.id] = True, await self.propose(tree, node)
            left: list[Proposal] = []
            for proposal in waiting[node.id]:
                if same := known.get(proposal.transition.state.key):
                    [child] = self.add(tree, node, [proposal])
                    child.estimate, child.worth = same.estimate, same.worth
                else:
                    left.append(proposal)
            waiting[node.id], node.listed = left, not left
            if left:
                [child] = self.add(tree, node, [left.pop(0)])
                node.listed = not left
                await self.judge(tree, [child])
                first = known.setdefault(child.state.key, child) is child  # else another turn judged it meanwhile
                if first and child.state.terminal:
                    child.kept, finished = True, max(finished, score_of(child))
                elif first and child.depth < deepest:
                    heapq.heappush(queue, (-(child.worth + self.progress * child.depth / deepest), child.id, child))
            if left:
                own = 1.0 if node.estimate is None else node.worth
                ahead = own + self.progress * (node.depth + 1) / deepest - self.decay * len(node.children)
                heapq.heappush(queue, (-ahead, node.id, node))

        await engine.rolling(begin, self.parallel)

    def choose(self, tree: Tree) -> Node:
        """The best finished state by its own value; without one, the best judged state."""
        leaf = best_judged(self, tree)
        for node in tree.path(leaf):
            node.kept = True
        return leaf
