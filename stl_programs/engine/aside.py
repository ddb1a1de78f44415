"""Work beside the event loop: in one thread, in the order in which it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """A thread for what would hold up the loop; it begins with the first work, and ends with `close`.

    Example:
        >>> aside = Aside()
        >>> record = await aside(tree.to_dict)
        >>> aside.close()
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """`work(*args)`; what it raises is raised here."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "beside the loop")
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def close(self) -> None:
        """Wait for what was begun."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
