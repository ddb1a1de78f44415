"""What a line of a journal may say, as schemas: whatever lies on the disk, nothing else gets further."""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stl_programs.engine.budget import Cost
from stl_programs.models.base import Reply
from stl_programs.records import TaskResult, Usage

LARGEST = 2**53
"""Of counts and amounts: what a float holds exactly."""
DEEPEST = 200
"""How deep a first line may be nested."""
Key = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
Token = Annotated[tuple[str, Annotated[float, Field(le=LARGEST, allow_inf_nan=True)]], Field(strict=False)]
"""A token and its natural log-probability, which may be that of what cannot be: minus infinity."""

Texts = Annotated[list[str | None], Field(fail_fast=True)]
Bound = Annotated[tuple[Count, Amount | None], Field(strict=False)]


class Damaged(ValueError):
    """Why a line cannot be used."""


class Caller(NamedTuple):
    """Who makes a call, and so who pays for it: a module's role and its model, in one trial of one task."""

    seed: int
    task: str
    role: str
    model: str


class Row(BaseModel):
    """One line. No field beside those that are named, and no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Called(Row):
    seed: int = 0
    task: str | None = None
    role: str | None = None
    model: str | None = None

    @property
    def caller(self) -> Caller | None:
        """None where an old journal does not say."""
        if self.task is None or self.role is None or self.model is None:
            return None
        return Caller(self.seed, self.task, self.role, self.model)


class SentRow(_Called):
    """A request leaves for a server; `bound`: the most that it may cost, in tokens and dollars."""

    sent: Key
    bound: Bound
    task: str
    role: str
    model: str

    @property
    def named(self) -> Caller:
        return Caller(self.seed, self.task, self.role, self.model)

    @property
    def cost(self) -> Cost:
        return Cost(1, *self.bound)


class ReplyRow(_Called):
    """A reply; `here`: of a model in this process, to which nothing was sent; `bounds`: its tokens are upper bounds."""

    reply: Key
    texts: Texts
    tokens: Annotated[tuple[Count, Count, Count], Field(strict=False)]
    seconds: Amount
    dollars: Amount | None = None
    here: bool = False
    bounds: bool = False
    logprobs: list[Annotated[list[Token], Field(fail_fast=True)]] | None = None
    finish_reasons: Texts | None = None
    thoughts: Texts | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        for name in ("logprobs", "finish_reasons", "thoughts"):
            if (found := getattr(self, name)) is not None and len(found) != len(self.texts):
                raise ValueError(f"{len(found)} {name} for {len(self.texts)} texts")
        return self

    @property
    def said(self) -> Reply:
        prompt, cached, completion = self.tokens
        return Reply(self.texts, prompt, completion, cached, finish_reasons=self.finish_reasons,
                     thoughts=self.thoughts, logprobs=self.logprobs, bounds=self.bounds)


class FailedRow(_Called):
    """A request failed; `maybe_paid`: it may have been charged for, up to `bound`."""

    failed: Key
    why: str = ""
    maybe_paid: bool
    bound: Bound | None = None


class StepRow(Row):
    """A step of an environment that is not pure."""

    step: Key
    transition: dict[str, Any]


class _Result(Row):
    """A TaskResult; what an environment answers is its own."""

    task: str
    seed: int = 0
    answer: Any = None
    trajectory: list[Any] = []
    error: str | None = None
    traceback: str | None = None
    ended: str | None = None
    states_expanded: Count = 0
    states_judged: Count = 0
    seconds: Amount = 0.0
    usage: dict[str, dict[str, Amount | None]] = {}
    usage_by_model: dict[str, dict[str, dict[str, Amount | None]]] = {}
    tree: dict[str, Any] | None = None
    untaken: str | None = None
    committed: str | None = None
    notes: dict[str, Count] = {}


class ResultRow(Row):
    """A finished task, and the budget that it had."""

    result: _Result
    budget: dict[str, Amount] | None = None

    @property
    def outcome(self) -> TaskResult:
        fields = {name: getattr(self.result, name) for name in self.result.__pydantic_fields__}
        return TaskResult(**fields | {"usage": {role: _NOTHING | usage for role, usage in fields["usage"].items()}})


_NOTHING = Usage().to_dict()
_KINDS: dict[str, type[Row]] = {"sent": SentRow, "reply": ReplyRow, "failed": FailedRow, "step": StepRow,
                                "result": ResultRow}


class Header(Row):
    """The first line: what run this is, and the identity of the file."""

    format: Annotated[int, Field(ge=0, le=LARGEST)]
    fingerprint: Any = None
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    sum: str | None = None


def parsed(raw: bytes, *, once: bool = False) -> dict[str, Any]:
    """A line as a JSON object. Raises Damaged for anything else, and for a name that stands twice where `once`."""
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once if once else None)
    except UnicodeDecodeError:
        raise Damaged("is not UTF-8") from None
    except Damaged:
        raise
    except (ValueError, RecursionError):
        raise Damaged("is not JSON") from None
    if not isinstance(found, dict):
        raise Damaged("is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("names a field twice")
    return found


def row_of(found: dict[str, Any]) -> Row:
    """What a line says. Raises Damaged where that is none of the kinds, or not of its types."""
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) != 1:
        raise Damaged("is of no known kind")
    return _validated(_KINDS[kinds[0]], found)


def header_of(found: dict[str, Any]) -> Header:
    """What a first line says. Raises Damaged for one that is none."""
    if _too_deep(found):
        raise Damaged("is nested too deep")
    return _validated(Header, found)


def _validated(kind: type[Any], found: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"][:4]))
        raise Damaged(f"is not what it should be: {where[:60]}: {first['msg'][:100]}") from None


def _too_deep(found: Any) -> bool:
    level, depth = [found], 0
    while level and depth <= DEEPEST:
        level = [inner for entry in level if isinstance(entry, (dict, list))
                 for inner in (entry.values() if isinstance(entry, dict) else entry)]
        depth += 1
    return bool(level)
