"""Resets and steps as the engine asks for them: bounded in time, and sent again where they fail transiently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stl_programs.environments.base import Environment
from stl_programs.errors import TransientError
from stl_programs.records import Action, State, Task, Transition

T = TypeVar("T")
PAUSE = 0.1
"""Seconds before a request is sent again for the first time; doubled every time."""


async def reset(env: Environment, task: Task) -> State:
    """Where `task` begins."""
    return env.reset(task) if env.pure else await _sent(env, lambda: env.areset(task))


async def step(env: Environment, state: State, action: Action) -> Transition:
    """T(s, a)."""
    return env.step(state, action) if env.pure else await _sent(env, lambda: env.astep(state, action))


async def _sent(env: Environment, ask: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(env.retries):
        try:
            async with asyncio.timeout(env.timeout):
                return await ask()
        except (TransientError, TimeoutError) as error:
            pause = getattr(error, "retry_after", None)
            await asyncio.sleep(PAUSE * 2 ** attempt if pause is None else pause)
    async with asyncio.timeout(env.timeout):
        return await ask()
