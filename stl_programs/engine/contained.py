"""What would end the whole process, raised by one part of a program, stays an error of that part's task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Escaped(Exception):
    """Stands for a SystemExit, or whatever else is no Exception, that a part of a program raised; it is the cause."""


def begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """`work` as an asyncio task that ends no event loop; see `contained`."""
    task = asyncio.ensure_future(contained(work))
    task.add_done_callback(lambda _: work.close())  # one that was cancelled before its first step was never awaited
    return task


async def contained(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`. A SystemExit in an asyncio task would end the event loop with all that runs on it.

    Raises Escaped for what is no Exception; cancellation and Ctrl-C pass through.
    """
    me = asyncio.current_task()
    try:
        return await work
    except (Exception, asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _runs(me):  # the coroutine is thrown away, not run
            raise
        raise Escaped from error


def _runs(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no event loop runs
        return False
