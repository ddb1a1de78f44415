"""What is wrong with an environment: random legal play that finds it before a search pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from stl_programs.environments.base import Environment, sealed_reward
from stl_programs.environments.checking.declared import check_declared, check_task, tasks_of
from stl_programs.environments.checking.outcome import check_score
from stl_programs.environments.checking.player import Player, Propose, Step
from stl_programs.environments.checking.report import Abandoned, Finding, Findings, Report, shown
from stl_programs.environments.checking.travel import check_travel, sights_of
from stl_programs.records import State, Task, Transition

__all__ = ["Finding", "Findings", "check_environment"]

UNSOUND = ("step", "step raised", "astep raised", "replay", "branch", "reset", "state changed", "history", "action")
"""After these, what another process sees says nothing new."""


def check_environment(env: Environment, *, tasks: Sequence[Any] | None = None, plays: int = 5, seed: int = 0,
                      actions: Propose | None = None, process: bool = True,
                      variables: Mapping[str, str] | None = None) -> Findings:
    """Play an environment at random, and say what a search would stumble over; a line each, with its cure.

    Checked are: attributes, signatures, scales and judges; tasks and their round trips; that reset and step give the
    same for the same, also when played again and in another process; that a step leaves its state alone; keys,
    histories, cycles, ends and depth; legal actions; the inputs of signatures; journal rows of worlds that are not
    pure; scores, and that they are sealed. Actions that cannot be undone are never taken. A method that raises is a
    finding with its name.

    Args:
        tasks: Tasks, texts or Examples; those of "train" by default.
        plays: random plays in all, over the tasks in their order. seed: of the plays.
        actions: (state) -> texts, as a policy would propose them: where legal actions cannot be listed.
        process: also play once in another process, which takes a few seconds.
        variables: environment variables that the world needs there; of ours it gets those of `environment_of_child`.

    Returns the findings, of which there is one of a kind; an empty list where there are none.

    Example:
        >>> print(check_environment(env))
        - the key '/page' stands for two texts, 'page 1' and 'page 2': put into the key what makes the difference: ...
        >>> check_environment(env).raise_any()     # in a test of your own
    """
    if plays < 1:
        raise ValueError(f"plays={plays}: at least 1")
    report = Report()
    if check_declared(env, report):
        _run(_check_plays(env, report, tasks, plays, seed, actions, (variables or {}) if process else None))
    return report.findings


async def _check_plays(env: Environment, report: Report, given: Sequence[Any] | None, plays: int, seed: int,
                       propose: Propose | None, variables: Mapping[str, str] | None) -> None:
    if not env.listable and propose is None:
        report.say("not played", "the actions cannot be listed, so no step was taken",
                   "pass check_environment(env, actions=...), a function from a state to texts that a policy could "
                   "propose")
    player, played = Player(env, report, propose), list[tuple[Task, list[Step], State]]()
    tasks = [task for task in tasks_of(env, given, report)[:plays] if check_task(env, task, report)]
    try:
        for i in range(plays if tasks else 0):
            with contextlib.suppress(Abandoned):
                task = tasks[i % len(tasks)]
                with sealed_reward():
                    steps, end = await _check_play(player, task, random.Random(f"{seed}/{i}"))
                played.append((task, steps, end))
                await check_score(env, task, end, report)
        player.check_ends()
        if played and not report.has(*UNSOUND):
            await _check_trip(env, report, max(played, key=lambda one: len(one[1])), variables)
    finally:
        with contextlib.suppress(Abandoned):
            await report.aask("aclose", env.aclose())


async def _check_play(player: Player, task: Task, draw: random.Random) -> tuple[list[Step], State]:
    """A play and where it ended; the start has to be the same twice, and the play too."""
    first, second = await player.reset(task), await player.reset(task)
    if (first.text, first.key, first.terminal) != (second.text, second.key, second.terminal):
        player.report.say("reset", f"{task.id!r} begins as {shown(first.text)} (key {shown(first.key)}) and then as "
                          f"{shown(second.text)} (key {shown(second.key)})",
                          "a task always begins the same: seed chance with the task")
        raise Abandoned
    if first.history:
        player.report.say("history", f"reset gives a history of {len(first.history)} actions",
                          "begin with an empty one")
        raise Abandoned
    _check_successors(player, first)
    steps = await player.play(task, draw)
    await player.play_again(task, steps)
    return steps, steps[-1].after.state if steps else first


def _check_successors(player: Player, state: State) -> None:
    """Where `successors` is written for speed, it must say what `legal_actions` and `step` say."""
    env, report = player.env, player.report
    if not env.pure or not env.listable or type(env).successors is Environment.successors:
        return
    pairs = "list pairs of Action and Transition"
    fast, slow = ([(action, report.expect("successors", step, Transition, pairs).state.key)
                   for action, step in report.ask("successors", listing, state)]
                  for listing in (env.successors, partial(Environment.successors, env)))
    if fast != slow:
        report.say("successors", f"successors lists {len(fast)} of {shown(state.text)}, which are not the {len(slow)} "
                   "that legal_actions and step give", "let both say the same, in the same order, or leave it out")


async def _check_trip(env: Environment, report: Report, play: tuple[Task, list[Step], State],
                      variables: Mapping[str, str] | None) -> None:
    task, steps, _ = play
    texts = [step.action.text for step in steps]
    with contextlib.suppress(Abandoned), sealed_reward():
        sights = await report.aask("step", sights_of(env, task, texts))
        await report.aask("aclose", env.aclose())  # as before a run, when an executor sends it
        await asyncio.to_thread(check_travel, env, task, texts, sights, report, variables=variables)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own, also where one runs already (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, work).result()
