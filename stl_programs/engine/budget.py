"""Budgets: an upper bound is reserved before anything is sent, so that no concurrency overshoots."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from stl_programs.errors import BudgetSpent, ModelError
from stl_programs.records import Usage, plus


@dataclass(frozen=True)
class Budget:
    """Limits; None is no limit. One object can bound a run, a task or a module.

    dollars, tokens (prompts and completions), calls (requests sent, repeated ones too), states (expanded), seconds
    (wall time; for a run or a task). A budget may be left partly unspent: a request is sent only if its upper bound
    still fits.

    Example:
        >>> MCTS(env, policy, value, budget=Budget(calls=100, dollars=0.05))
    """

    dollars: float | None = None
    tokens: int | None = None
    calls: int | None = None
    states: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
                raise ValueError(f"Budget({field.name}={limit!r}): a limit is a number above 0; leave it out for none")

    @property
    def counts_calls(self) -> bool:
        """Whether it limits what only calls that pass through the engine can be held to."""
        return any(limit is not None for limit in (self.calls, self.tokens, self.dollars))

    def to_dict(self) -> dict[str, Any]:
        """The limits that are set."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}


@dataclass(slots=True)
class Cost:
    """An amount of each limited thing. `dollars` None: the price is unknown."""

    calls: int = 0
    tokens: int = 0
    dollars: float | None = 0.0
    states: int = 0


def cost_of(usage: Usage) -> Cost:
    """What counts against budgets: requests sent, with the upper bounds of those that may have been paid for."""
    return Cost(usage.calls + usage.failed_calls,
                usage.prompt_tokens + usage.completion_tokens + usage.possibly_paid_tokens,
                plus(usage.dollars, usage.possibly_paid_dollars))


_NAMES = ("calls", "tokens", "dollars", "states")


class Ledger:
    """What was spent under one budget, and what is reserved for requests in flight."""

    def __init__(self, budget: Budget, owner: str):
        self.owner = owner
        self.limits = {name: limit for name in _NAMES if (limit := getattr(budget, name)) is not None}
        self.spent = dict.fromkeys(_NAMES, 0.0)
        self.reserved = dict.fromkeys(_NAMES, 0.0)
        self.held = 0
        """Reservations that are not settled."""

    def lacking(self, cost: Cost) -> str | None:
        """The limit that `cost` would break on top of all that is spent and reserved."""
        for name, limit in self.limits.items():
            if self.spent[name] + self.reserved[name] + self._amount(cost, name) > limit + 1e-12:
                return name
        return None

    def hopeless(self, cost: Cost) -> str | None:
        """The limit that `cost` would break even if all that is reserved were given back. Nothing spent ever is."""
        for name, limit in self.limits.items():
            if self.spent[name] + self._amount(cost, name) > limit + 1e-12:
                return name
        return None

    def reserve(self, cost: Cost) -> None:
        self.held += 1
        for name in self.limits:
            self.reserved[name] += self._amount(cost, name)

    def settle(self, bound: Cost, actual: Cost) -> None:
        """Give back the reserved `bound` and book what was really used."""
        if self.limits:
            self.held -= 1
        for name in self.limits:
            self.reserved[name] = self.reserved[name] - self._amount(bound, name) if self.held else 0.0
        self.book(actual)

    def book(self, actual: Cost) -> None:
        for name in _NAMES:
            self.spent[name] += getattr(actual, name) or 0.0

    def refusal(self, name: str, cost: Cost) -> BudgetSpent:
        return BudgetSpent(f"the {self.owner}'s budget of {self.limits[name]:g} {name} is spent: {self.spent[name]:g} "
                           f"used, and the next request may need {self._amount(cost, name):g}", owner=self.owner)

    def _amount(self, cost: Cost, name: str) -> float:
        amount = getattr(cost, name)
        if amount is None:
            raise ModelError(f"the {self.owner} has a budget of dollars, and a model's price is unknown; register its "
                             "price with litellm.register_model, or limit tokens instead")
        return float(amount)
