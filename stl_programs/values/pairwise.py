"""Pairwise comparison of siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from stl_programs import engine
from stl_programs.errors import BudgetSpent
from stl_programs.records import ValueEstimate
from stl_programs.situations import Situation
from stl_programs.values.base import Judged
from stl_programs.values.siblings import AsksTogether


class PairwiseValue(AsksTogether):
    """A comparator (`signatures.CompareStates`): a state is worth the share of its comparisons that it wins.

    Every pair of siblings is asked both ways round, so that a liking for the first place cancels. Scores run over the
    environment's scale and mean something among siblings only: use it in `GreedySearch`.
    """

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        if not situations:
            return []
        pairs = [(a, b) for i, j in combinations(range(len(situations)), 2) for a, b in ((i, j), (j, i))]
        try:
            replies = await engine.together(*(self.ask(
                [situations[a], situations[b]], first=situations[a].state.text, second=situations[b].state.text)
                for a, b in pairs))
        except BudgetSpent as spent:
            return [spent] * len(situations)
        wins, seen = Counter[int](), Counter[int]()
        for (a, b), draws in zip(pairs, replies, strict=True):
            for better in (str(fields["better"]).strip().lower() for fields in draws if fields):
                if better in ("first", "second"):
                    seen.update((a, b))
                    wins[a if better == "first" else b] += 1
        scale = situations[0].environment.scale
        low, high = scale.bottom, scale.top
        if len(situations) == 1:
            return [ValueEstimate(high, "the only one")]
        return [ValueEstimate(low + (high - low) * wins[i] / seen[i], f"won {wins[i]} of {seen[i]} comparisons")
                if seen[i] else ValueEstimate(None) for i in range(len(situations))]
