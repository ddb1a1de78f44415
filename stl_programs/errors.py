"""What can go wrong, as one base and few children; each message says the value, the limit and what to do."""

from typing import Any

from stl_programs.display import clean_lines
from stl_programs.secrets import cleaned


class StlError(Exception):
    """Base of every error that this project raises on purpose. Its text shows no secret and acts on no terminal."""

    def __init__(self, *said: Any):
        super().__init__(*(clean_lines(part) if isinstance(part, str) else part for part in map(cleaned, said)))


class SettingError(StlError, ValueError):
    """An argument of another type than it can be, or out of its range: said before anything is done with it."""


class TaskError(StlError, ValueError):
    """A task, action or answer that the environment cannot accept."""


class ModelError(StlError):
    """A model cannot be reached, loaded or used as asked. `maybe_paid`: the provider may have charged for it."""

    def __init__(self, message: str, *, maybe_paid: bool = False):
        super().__init__(message)
        self.maybe_paid = maybe_paid


class OutOfRange(ModelError):
    """A prompt the model cannot read at all (a number outside its vocabulary): the estimate is missing."""


class TransientError(ModelError):
    """A request that failed but may pass when sent again (busy server, lost connection, cut reply).

    `retry_after`: seconds that the server asked to wait; 0 where another server is up.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, maybe_paid: bool = False):
        super().__init__(message, maybe_paid=maybe_paid)
        self.retry_after = retry_after


class AskOtherwise(TransientError):
    """A server refused how it was asked, unpaid; the model now asks otherwise, and the request may go again at once."""


class BudgetSpent(StlError):
    """A budget does not cover the next request; nothing was sent for it.

    `owner` is whose: "task", "run" or a module. A task that another's budget ended can go on with a larger one.
    """

    def __init__(self, message: str, *, owner: str = "task"):
        super().__init__(message)
        self.owner = owner


class AdapterError(StlError):
    """An adapter that does not belong to this base model, signature or file."""


class JournalError(StlError):
    """A journal that belongs to another run, or cannot be written."""


class RewardSealed(StlError):
    """The environment's reward was asked for during a reward-free search."""
