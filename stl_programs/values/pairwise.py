"""Pairwise comparison of siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from stl_programs import engine
from stl_programs.errors import BudgetSpent
from stl_programs.records import ValueEstimate
from stl_programs.situations import Situation
from stl_programs.values.base import Judged
from stl_programs.values.siblings import AsksTogether

SIDE_BY_SIDE = 256
"""Comparisons begun at once: more than any server takes, few enough to see that a budget is spent."""


class PairwiseValue(AsksTogether):
    """A comparator (`signatures.CompareStates`): a state is worth the share of its comparisons that it wins.

    Every pair of siblings is asked both ways round, so that a liking for the first place cancels. Scores run over the
    environment's scale and mean something among siblings only: use it in `GreedySearch`.
    """

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        if not situations:
            return []
        wins, seen = Counter[int](), Counter[int]()

        async def compare(a: int, b: int) -> None:
            draws = await self.ask([situations[a], situations[b]], first=situations[a].state.text,
                                   second=situations[b].state.text)
            for better in (str(fields["better"]).strip().lower() for fields in draws if fields):
                if better in ("first", "second"):
                    seen.update((a, b))
                    wins[a if better == "first" else b] += 1

        left = permutations(range(len(situations)), 2)
        try:
            await engine.rolling(lambda: compare(*pair) if (pair := next(left, None)) else None, SIDE_BY_SIDE)
        except BudgetSpent as spent:  # of many pairs the rest is not begun
            return [spent] * len(situations)
        scale = situations[0].environment.scale
        low, high = scale.bottom, scale.top
        if len(situations) == 1:
            return [ValueEstimate(high, "the only one")]
        return [ValueEstimate(low + (high - low) * wins[i] / seen[i], f"won {wins[i]} of {seen[i]} comparisons")
                if seen[i] else ValueEstimate(None) for i in range(len(situations))]
