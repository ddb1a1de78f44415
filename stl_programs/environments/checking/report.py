"""What a check has found, a line each, and asking a user's methods so that their errors are lines too."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from stl_programs.errors import StlError, TaskError, TransientError
from stl_programs.secrets import masked

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what}: {self.cure}"


class Findings(list[Finding]):
    """All that was found; empty where all is well. Prints as one line each.

    Example:
        >>> print(check_environment(env))
        nothing to mend
    """

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self) or "nothing to mend"

    def raise_any(self) -> None:
        """Raises StlError, with a line for each, where something was found: for a test of one's own."""
        if self:
            raise StlError(f"{len(self)} to mend\n{self}")


TIRED = "it was sent again `retries` times, within `timeout` seconds each: look at the backend, or raise them"


class Abandoned(Exception):
    """What was being checked cannot go on; why is a finding already."""


class Report:
    """Collects findings, the first of every kind: a fault that shows at every step is one line."""

    def __init__(self) -> None:
        self.findings, self.kinds = Findings(), set[str]()

    def say(self, kind: str, what: str, cure: str) -> None:
        if kind not in self.kinds:
            self.kinds.add(kind)
            self.findings.append(Finding(one_line(masked(what)), cure))

    def has(self, *kinds: str) -> bool:
        return not self.kinds.isdisjoint(kinds)

    def ask(self, method: str, call: Callable[..., T], *args: Any, passing: tuple[type[Exception], ...] = ()) -> T:
        """What the user's method gives. Raises Abandoned, with a finding, where it raises other than `passing`."""
        try:
            return call(*args)
        except passing:
            raise
        except Exception as error:
            raise self.raised(method, error) from None

    async def aask(self, method: str, answer: Awaitable[T], passing: tuple[type[Exception], ...] = ()) -> T:
        """The same, awaited."""
        try:
            return await answer
        except passing:
            raise
        except Exception as error:
            raise self.raised(method, error) from None

    def expect(self, method: str, found: Any, kind: type[T], cure: str) -> T:
        """`found`, where it is of its kind. Raises Abandoned, with a finding, where it is not."""
        if not isinstance(found, kind):
            self.say(f"{method} gives", f"{method} gives a {type(found).__name__} where a {kind.__name__} belongs",
                     cure)
            raise Abandoned
        return found

    def raised(self, method: str, error: Exception) -> Abandoned:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
        cure = (TIRED if isinstance(error, (TransientError, TimeoutError)) else
                "accept what the world itself gave, or do not give it" if isinstance(error, TaskError) else
                "do what the error says" if isinstance(error, StlError) else
                "mend it; what is not possible raises TaskError")
        self.say(f"{method} raised", f"{method} raised {type(error).__name__}: {error} ({where})", cure)
        return Abandoned()


def one_line(text: str, width: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[:width - 3]}..."


def shown(text: str) -> str:
    """A text of a state, short enough for a line."""
    return repr(one_line(str(text), 60))
