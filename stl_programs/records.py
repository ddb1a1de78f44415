"""The nouns of a search as frozen records, units and shapes beside the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from stl_programs.display import html_table, markdown_table

Information = Literal["reward-free", "reward-guided", "reward and demonstrations"]
"""What a module may see, from least to most."""


def well_formed(text: str) -> str:
    """`text` with a replacement character for every half of a surrogate pair, which no encoding takes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(frozen=True, slots=True)
class Task:
    """One problem to solve. `id` is unique within its environment; `text` is what models read.

    `fields`: further inputs that signatures may name, as those of a dspy.Example beside its task.
    """

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("id", "text"):
            if isinstance(text := getattr(self, name), str) and not text.isascii():
                object.__setattr__(self, name, well_formed(text))


@dataclass(frozen=True, slots=True)
class State:
    """A point of a search. Immutable. What is seen in it stands apart from what was done to get there.

    Args:
        text: what is observed here, and no more: the page, the board, the last line. Models read it.
        key: names the state within its task; `text` by default. Two states of one task with equal keys are worth the
            same: they are judged once, kept once in a beam, and make one training row.
        history: the actions that led here, oldest first.
        terminal: whether the task ends here.
        data: the environment's own immutable payload; no model reads it.
        untaken: the end of an action that cannot be undone: judged, and not taken (see `Environment.commit`).

    Raises TypeError for a key that is no string: keys are compared, hashed, journaled and saved as text.

    Example:
        >>> State("the shop's front page").then("click[B001]", "a red mug").history
        ('click[B001]',)
    """

    text: str
    key: str = None  # type: ignore[assignment]
    history: tuple[str, ...] = ()
    terminal: bool = False
    data: Any = field(default=None, compare=False, repr=False)
    untaken: bool = False

    def __post_init__(self) -> None:
        if self.key.__class__ is not str:
            if self.key is not None:
                raise TypeError(f"State(key={self.key!r}) is a {type(self.key).__name__}; a key is a string, equal for "
                                "states that are worth the same: write str(...) or json.dumps(..., sort_keys=True) of "
                                "it")
            object.__setattr__(self, "key", self.text)
        if not (self.key.isascii() and self.text.isascii()):
            object.__setattr__(self, "text", well_formed(self.text))
            object.__setattr__(self, "key", well_formed(self.key))

    def then(self, action: str, text: str, key: str | None = None, *, terminal: bool = False,
             data: Any = None) -> State:
        """The state after `action`, with its history."""
        return State(text, key, (*self.history, action), terminal, data)  # type: ignore[arg-type]

    @property
    def trajectory(self) -> str:
        """The actions so far, one a line."""
        return "\n".join(self.history)


@dataclass(frozen=True, slots=True)
class Action:
    """A step that can be taken. Irreversible ones are never taken during search."""

    text: str
    irreversible: bool = False


class Transition(NamedTuple):
    """T(s, a): the next state, whether the task ended there, and what was observed (the state's text by default)."""

    state: State
    terminated: bool = False
    truncated: bool = False
    observation: str = ""


class Sample(NamedTuple):
    """One draw of a value model. `score` None means missing, and `missing` says why."""

    score: float | None
    rationale: str = ""
    missing: str | None = None


class ValueEstimate(NamedTuple):
    """V(s): the aggregate of the draws that parsed, on the scale of the environment; None when none did.

    `rationale` is that of the draw nearest the aggregate (see `stl_programs.values.aggregate`).
    """

    score: float | None
    rationale: str = ""
    samples: tuple[Sample, ...] = ()

    @property
    def missing(self) -> bool:
        return self.score is None


@dataclass(slots=True)
class Usage:
    """What calls cost. Prompt tokens are counted once per request, completion tokens per draw.

    Calls, samples, tokens, seconds and dollars are those of replies that arrived whole. A request whose reply was lost
    on the way (cut, timed out, cancelled) stands under `possibly_paid_...`, with upper bounds.
    """

    calls: int = 0
    bounded_calls: int = 0
    """Of these, those whose tokens are upper bounds: the server did not count them, or counted what cannot be."""
    samples: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider read from its prefix cache."""
    completion_tokens: int = 0
    seconds: float = 0.0
    dollars: float | None = 0.0
    """None once a call's price is unknown: unknown is not free."""
    parse_failures: int = 0
    out_of_range: int = 0
    failed_calls: int = 0
    """Requests that were sent and brought no reply: refused, failed or lost."""
    cached_calls: int = 0
    """Calls answered by a journal, or by the same request in flight: nothing was sent or paid."""
    possibly_paid_calls: int = 0
    """Of the failed ones, those that the provider may have charged for."""
    possibly_paid_tokens: int = 0
    possibly_paid_dollars: float | None = 0.0
    steps: int = 0
    """Requests to an environment that is not pure."""

    def add(self, other: Usage) -> None:
        """Add `other` in place."""
        self.calls += other.calls
        self.bounded_calls += other.bounded_calls
        self.samples += other.samples
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        self.seconds += other.seconds
        self.dollars = plus(self.dollars, other.dollars)
        self.parse_failures += other.parse_failures
        self.out_of_range += other.out_of_range
        self.failed_calls += other.failed_calls
        self.cached_calls += other.cached_calls
        self.possibly_paid_calls += other.possibly_paid_calls
        self.possibly_paid_tokens += other.possibly_paid_tokens
        self.possibly_paid_dollars = plus(self.possibly_paid_dollars, other.possibly_paid_dollars)
        self.steps += other.steps

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plus(one: float | None, other: float | None) -> float | None:
    """The sum of two amounts of dollars; None where either is unknown."""
    return None if one is None or other is None else one + other


@dataclass
class TaskResult:
    """The outcome of one task: an answer, or the reason why there is none. JSON-ready."""

    task: str
    seed: int = 0
    answer: str | None = None
    trajectory: list[str] = field(default_factory=list)
    error: str | None = None
    """In one line; `traceback` holds that of an error that nobody raised on purpose."""
    traceback: str | None = None
    ended: str | None = None
    """The budget that ended the search before its algorithm did; the answer is the best until then."""
    states_expanded: int = 0
    states_judged: int = 0
    seconds: float = 0.0
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By role ("policy", "value"); see `Usage`."""
    usage_by_model: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By role, then by model; zeros are left out. `stl_programs.costs` sums it up."""
    tree: dict[str, Any] | None = None
    untaken: str | None = None
    """The chosen action that cannot be undone and was not taken; `Environment.commit` takes it."""
    committed: str | None = None
    """The same, taken after the search."""
    notes: dict[str, int] = field(default_factory=dict)
    """What went wrong without failing the task, counted: states without a proposal, replies that did not parse, ..."""

    @property
    def cost(self) -> float | None:
        """Dollars; None where a price is unknown."""
        prices = [usage["dollars"] for usage in self.usage.values()]
        return None if None in prices else sum(prices)

    def _repr_html_(self) -> str:
        """In a notebook: what came of the task and what it cost; what models wrote is escaped."""
        return html_table(self.shown())

    def _repr_markdown_(self) -> str:
        """The same where a notebook shows Markdown."""
        return markdown_table(self.shown())

    def shown(self) -> dict[str, Any]:
        """What a notebook shows, by name; what is empty goes without saying."""
        return {"task": self.task, "seed": self.seed or None, "answer": self.answer, "failed": self.error,
                "actions": " / ".join(self.trajectory), "ended by": self.ended, "chosen, not taken": self.untaken,
                "taken": self.committed, "states judged": self.states_judged or None,
                **cost_rows(self.usage, self.cost), "noticed": noticed(self.notes)}


def cost_rows(usage: Mapping[str, Mapping[str, Any]], dollars: float | None) -> dict[str, Any]:
    """Tokens and dollars of a bill by role, as rows of a table."""
    tokens = sum(one["prompt_tokens"] + one["completion_tokens"] for one in usage.values())
    return {"tokens": tokens or None, "dollars": "unknown" if dollars is None else dollars or None}


def noticed(notes: Mapping[str, int]) -> str:
    """Notes in one line."""
    return "; ".join(f"{what}: {count}" for what, count in notes.items())
