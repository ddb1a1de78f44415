"""Steps of an environment: pure ones are called; others are journaled, bounded, timed, retried and billed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from stl_programs.engine.context import context
from stl_programs.environments.base import Environment
from stl_programs.errors import JournalError, StlError, TaskError, TransientError
from stl_programs.records import Action, State, Task, Transition, Usage

ROLE = "environment"
"""Whose steps they are, in bills."""


async def take(environment: Environment, task: Task, state: State, action: Action) -> Transition:
    """T(s, a), or the judged leaf of an action that cannot be undone; never taken twice in a trial.

    Raises TaskError for an action that is not possible.
    """
    if action.irreversible:
        return environment.leaf(state, action)
    if environment.pure:
        context().check_deadline()
        return checked(environment, environment.step(state, action))
    path = (*state.history, action.text)
    return await _once(environment, task, path, f"the step {action.text!r}", lambda: environment.astep(state, action))


async def begin(environment: Environment, task: Task) -> State:
    """Where `task` begins."""
    if environment.pure:
        return _begun(environment, environment.reset(task))

    async def reset() -> Transition:
        return Transition(_begun(environment, await environment.areset(task)))

    return (await _once(environment, task, (), "the reset", reset)).state


async def commit(environment: Environment, task: Task, state: State, action: Action) -> Transition:
    """Take the chosen action for good, at most once in the life of a journal.

    Raises TaskError where it is refused, StlError where it is not known what came of it, and JournalError where that
    was so in an earlier run.
    """
    current = context()
    run, path = current.run, (*state.history, action.text)
    key = step_key("commit", current.seed, current.task, *path)
    if (done := run.own.steps.get(key)) is not None:
        return _known(environment, path, done)
    begun = step_key("commit begun", key)
    if begun in run.own.steps:
        raise JournalError(f"{action.text!r} of {task.id!r} was begun by an earlier run, and what came of it is not "
                           "known; it is not taken again: look at the backend, and use another journal if it was not "
                           "done")
    if run.own.damaged or run.own.missing:
        raise JournalError(f"it is not known whether {action.text!r} of {task.id!r} was taken by an earlier run: lines "
                           "of the journal are damaged or gone; it is not taken: look at the backend, and use another "
                           "journal if it was not done")
    if run.offline:
        raise JournalError(f"offline: {action.text!r} of {task.id!r} was not taken")
    if run.journal:
        run.journal.step(begun, {"action": action.text}, at_once=True)
    current.bill(ROLE, Usage(steps=1))
    try:
        transition = checked(environment, await environment.commit(task, state, action))
    except TaskError as refused:
        if run.journal:
            run.journal.step(key, {"refused": str(refused)})
        raise
    except Exception as error:
        raise StlError(f"taking {action.text!r} failed: {type(error).__name__}: {error}; it is not sent again, as it "
                       "may have been done") from error
    if run.journal:
        run.journal.step(key, environment.record(transition))
    return transition


def checked(environment: Environment, step: Any) -> Transition:
    """`step`. Raises StlError where a world gives something else than a Transition."""
    if not isinstance(step, Transition):
        raise StlError(f"a step of {environment.name} gives a {type(step).__name__}: return Transition(state, "
                       "terminated=state.terminal)")
    return step


def _begun(environment: Environment, state: Any) -> State:
    if not isinstance(state, State):
        raise StlError(f"the reset of {environment.name} gives a {type(state).__name__}: return State(text)")
    return state


def step_key(*parts: object) -> str:
    """Names a step in a journal."""
    text = "\x1f".join(map(str, parts))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()


async def _once(environment: Environment, task: Task, path: tuple[str, ...], what: str,
                ask: Callable[[], Awaitable[Transition]]) -> Transition:
    """One request to the environment, by seed, task and path: remembered, found in a journal, or sent.

    A refusal (TaskError) is an answer, and kept like one.
    """
    current = context()
    key = step_key(current.seed, current.task, *path)
    run = current.run

    async def send() -> Transition | TaskError:
        for recording in (run.own, run.recorded):
            if (row := recording.steps.get(key)) is not None:
                try:
                    return _known(environment, path, row)
                except TaskError as refused:
                    return refused
        if run.offline:
            raise JournalError(f"offline: {what} of {current.task!r} is in no journal")
        try:
            found: Transition | TaskError = await _send(environment, what, ask)
        except TaskError as error:
            found = error
        if run.journal:
            run.journal.step(key, {"refused": str(found)} if isinstance(found, TaskError) else
                             _record(environment, found))
        return found

    found = await current.once(("step", key), send)
    if isinstance(found, TaskError):
        raise TaskError(str(found))
    return found


def _known(environment: Environment, path: tuple[str, ...], row: dict[str, Any]) -> Transition:
    """What a journal says of a step. Raises TaskError where it was refused."""
    if "refused" in row:
        raise TaskError(row["refused"])
    try:
        return environment.restore(path, row)
    except Exception as error:
        raise JournalError(f"a step of {environment.name} in the journal cannot be restored: {type(error).__name__}: "
                           f"{error}; it was written for another version of this world: use another journal") from error


def _record(environment: Environment, transition: Transition) -> dict[str, Any]:
    row = environment.record(transition)
    try:
        json.dumps(row)
    except (TypeError, ValueError) as error:
        raise StlError(f"a state of {environment.name} cannot be journaled: {error}; keep State.data JSON, or override "
                       "Environment.record and restore") from None
    return row


async def _send(environment: Environment, what: str, ask: Callable[[], Awaitable[Transition]]) -> Transition:
    """Within the environment's own bound and time-out; what fails transiently is sent again."""
    current = context()
    run = current.run
    endpoint = f"environment {environment.name}"
    run.gate.limits.setdefault(endpoint, environment.in_flight)
    for attempt in range(environment.retries + 1):
        started = time.perf_counter()
        try:
            async with run.gate.slot(endpoint, current.order):
                current.check_deadline()
                started = time.perf_counter()
                async with asyncio.timeout(environment.timeout):
                    transition = checked(environment, await ask())
            current.bill(ROLE, Usage(steps=1, seconds=time.perf_counter() - started))
            return transition
        except (TransientError, TimeoutError) as error:
            current.bill(ROLE, Usage(steps=1, seconds=time.perf_counter() - started, failed_calls=1))
            why = str(error) or f"no answer within {environment.timeout:g} s"
            pause = getattr(error, "retry_after", None)
        if attempt < environment.retries:
            await asyncio.sleep(run.backoff * 2 ** attempt if pause is None else pause)
    raise StlError(f"{what} of {environment.name} failed: {why} (sent {environment.retries + 1} times)")
