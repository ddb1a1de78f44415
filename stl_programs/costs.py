"""What a run cost, as rows that can be summed: by phase, iteration, module, model and task.

    bills = bills_of(results, phase="rollouts", iteration=1)
    print(markdown(total(bills, by=("phase", "model"))))

Rollouts (data generation) and training are one-time costs; everything else is inference. Tokens and dollars are those
of replies that arrived whole, and add up to the provider's count. What a lost reply may have cost stands beside, as an
upper bound. A call answered by a journal, or by the same request in flight, cost nothing and counts as cached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from stl_programs.display import one_line
from stl_programs.extras import need
from stl_programs.models.prices import is_open, training_price
from stl_programs.records import TaskResult, plus

if TYPE_CHECKING:
    from rich.table import Table

ONE_TIME = ("rollouts", "training")
"""Phases that are paid once, before the tuned value is used."""


@dataclass(frozen=True)
class Bill:
    """One row of costs. A label is None where the row sums over it."""

    phase: str | None = None
    """"rollouts", "training", "evaluation", or a name of one's own."""
    one_time: bool | None = None
    iteration: int | None = None
    """k of V(k): of the rollouts and the training that made it, or of its evaluation."""
    module: str | None = None
    """The role that called: "policy", "value"."""
    model: str | None = None
    """A LiteLLM string; an adapter as BASE@VERSION."""
    open: bool | None = None
    """Whether anybody can run the model; see `models.prices.is_open`."""
    task: str | None = None
    calls: int = 0
    """Requests answered."""
    samples: int = 0
    """Draws in those answers."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider read from its prefix cache."""
    completion_tokens: int = 0
    dollars: float | None = 0.0
    """None where a price is unknown: unknown is not free."""
    seconds: float = 0.0
    """Seconds of waiting for replies (overlapping ones add up), or of training."""
    cached_calls: int = 0
    """Calls that cost nothing: answered by a journal, or by the same request in flight."""
    failed_calls: int = 0
    """Requests that were sent and brought no reply."""
    possibly_paid_calls: int = 0
    """Of the failed ones, those that the provider may have charged for."""
    possibly_paid_tokens: int = 0
    """At most."""
    possibly_paid_dollars: float | None = 0.0
    """At most; not part of `dollars`."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


LABELS = ("one_time", "phase", "iteration", "module", "model", "open", "task")
AMOUNTS = tuple(field.name for field in fields(Bill) if field.name not in LABELS)


def bills_of(results: Iterable[TaskResult], *, phase: str = "inference", iteration: int | None = None,
             per_task: bool = False) -> list[Bill]:
    """What the tasks of a run cost, a row per module and model (`per_task`: and task). A result given twice counts
    once.

    Journaled results hold what they cost when they were paid, so a resumed run has the bills of the whole one.
    """
    once = {id(result): result for result in results}
    rows = [Bill(phase, phase in ONE_TIME, iteration, role, model, is_open(model), result.task,
                 **{name: amount for name, amount in usage.items() if name in AMOUNTS})
            for result in once.values() for role, by_model in result.usage_by_model.items()
            for model, usage in by_model.items()]
    return total(rows, by=LABELS if per_task else LABELS[:-1])


def training_bill(seconds: float, model: str, *, iteration: int | None = None,
                  dollars_per_hour: float | None = None) -> Bill:
    """What one training cost, by `dollars_per_hour`, else "training_per_hour" of the price file; else unknown.

    `model` is the adapter that came out, or its base.
    """
    hourly = training_price() if dollars_per_hour is None else dollars_per_hour
    return Bill("training", True, iteration, "value", model, is_open(model), seconds=seconds,
                dollars=None if hourly is None else seconds / 3600 * hourly)


def total(bills: Iterable[Bill], by: Sequence[str] = ()) -> list[Bill]:
    """Sums of rows that agree in the labels `by`, in order of first appearance; without labels one row of all.

    Example:
        >>> [everything] = total(bills)
        >>> total(bills, by=("one_time", "open"))
    """
    if unknown := set(by) - set(LABELS):
        raise ValueError(f"by={sorted(unknown)}: choose of {', '.join(LABELS)}")
    sums: dict[tuple[Any, ...], dict[str, Any]] = {} if by else {(): {}}
    for bill in bills:
        row = sums.setdefault(tuple(getattr(bill, label) for label in by), {})
        for name in AMOUNTS:
            row[name] = plus(row.get(name, 0), getattr(bill, name))
    return [Bill(**dict(zip(by, key, strict=True)), **row) for key, row in sums.items()]


_WORDS = {"one_time": {True: "one-time", False: "inference"}, "open": {True: "open", False: "closed"}}
_HEADS = {"one_time": "", "open": "weights", "prompt_tokens": "prompt", "cached_tokens": "of it cached",
          "completion_tokens": "completion", "cached_calls": "cached calls", "failed_calls": "failed",
          "possibly_paid_dollars": "possibly paid"}
_SHOWN = ("calls", "cached_calls", "failed_calls", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds",
          "dollars")


def lines(bills: Sequence[Bill]) -> list[tuple[str, ...]]:
    """A table's cells as text, its heads first. Labels that no row has are left out."""
    labels = [label for label in LABELS if any(getattr(bill, label) is not None for bill in bills)]
    lost = ("possibly_paid_dollars",) if any(bill.possibly_paid_calls for bill in bills) else ()
    heads = tuple(_HEADS.get(name, name) for name in (*labels, *_SHOWN, *lost))
    return [heads] + [(*(one_line(_label(bill, label)) for label in labels),
                       *(_amount(bill, name) for name in (*_SHOWN, *lost))) for bill in bills]


def markdown(bills: Sequence[Bill]) -> str:
    """The rows as a Markdown table."""
    head, *rows = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines(bills))
    aligned = [":" if _label_head(name) else "" for name in lines(bills)[0]]
    rule = "|" + "|".join(f" {colon}---{'' if colon else ':'} " for colon in aligned) + "|"
    return "\n".join([head, rule, *rows, ""])


def table(bills: Sequence[Bill], title: str | None = None) -> Table:
    """The rows as a rich table. Raises StlError where rich is not installed."""
    need("a table on the terminal", "rich")
    from rich.table import Table
    from rich.text import Text

    head, *rows = lines(bills)
    shown = Table(title=title, show_edge=False)
    for name in head:
        shown.add_column(name, justify="left" if _label_head(name) else "right")
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def _label_head(name: str) -> bool:
    return name in {_HEADS.get(label, label) for label in LABELS}


def _label(bill: Bill, name: str) -> str:
    value = getattr(bill, name)
    return "all" if value is None else _WORDS[name][value] if name in _WORDS else str(value)


def _amount(bill: Bill, name: str) -> str:
    value = getattr(bill, name)
    if name == "possibly_paid_dollars":
        bound = "" if value is None else f", at most ${value:.4g}"
        return f"{bill.possibly_paid_calls} calls{bound}" if bill.possibly_paid_calls else ""
    if value is None:
        return "unknown"
    return f"{value:.4g}" if name == "dollars" else f"{value:,.1f}" if name == "seconds" else f"{value:,}"
