"""One value per depth (paper, appendix D.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from stl_programs.records import Information
from stl_programs.situations import Situation
from stl_programs.values.base import BaseValue, Judged


class PerDepth(BaseValue):
    """One value per depth, as the paper tunes them: the first judges states one step in, the last all deeper ones.

    Example:
        >>> PerDepth([Value(env.value_signature, name) for name in ("local/v-d1", "local/v-d2")])
    """

    def __init__(self, values: Sequence[BaseValue]):
        super().__init__()
        if not values:
            raise ValueError("PerDepth needs at least one value")
        if wrong := [value for value in values if not isinstance(value, BaseValue)]:
            raise TypeError(f"PerDepth of a {type(wrong[0]).__name__}: each is a value, one per depth")
        self.values = list(values)

    @property
    def information(self) -> Information:  # type: ignore[override]
        return max((value.information for value in self.values), key=get_args(Information).index)

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        """Siblings share a depth, and so a value."""
        depths = {max(situation.depth, 1) for situation in situations}
        if len(depths) > 1:
            return [judged for situation in situations for judged in await self.aforward([situation])]
        return await self.values[min(*depths, len(self.values)) - 1].aforward(situations) if situations else []
