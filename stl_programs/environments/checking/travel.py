"""The trip to another process: what an executor sends, and whether the same is seen there."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import cloudpickle

from stl_programs.children import environment_of_child
from stl_programs.environments.base import Environment, sealed_reward
from stl_programs.environments.checking import asking
from stl_programs.environments.checking.report import Report, one_line, shown
from stl_programs.records import Task

SECONDS = 300.0
"""That the other process may take."""
HOLDS = ("leave out in __getstate__ what belongs to this process (connections, locks, caches), and make it when it is "
         "first used")
CODE = "from stl_programs.environments.checking.travel import elsewhere; elsewhere()"


def check_travel(env: Environment, task: Task, actions: list[str], sights: list[list[Any]], report: Report, *,
                 variables: Mapping[str, str] | None) -> None:
    """Copy the environment, and play `actions` in another process, where `sights` must be seen.

    Args:
        variables: what the process is told of the environment beside `environment_of_child`; None: it is not begun.
    """
    try:
        copy.deepcopy(env)
    except Exception as error:
        report.say("travel", f"a deepcopy of the environment raises {type(error).__name__}: {error}", HOLDS)
        return
    try:
        sent = cloudpickle.dumps((env, task, actions))  # loaded elsewhere only: here it would change a script's classes
    except Exception as error:
        report.say("travel", f"the environment cannot be sent to another process: {type(error).__name__}: {error}",
                   HOLDS)
        return
    if variables is not None:
        _check_elsewhere(sent, sights, report, variables)


def _check_elsewhere(sent: bytes, sights: list[list[Any]], report: Report, variables: Mapping[str, str]) -> None:
    settings = environment_of_child({"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, variables)
    settings.pop("PYTHONHASHSEED", None)
    try:
        done = subprocess.run([sys.executable, "-c", CODE], input=sent, capture_output=True, timeout=SECONDS,
                              check=False, env=settings)
    except subprocess.TimeoutExpired:
        report.say("travel", f"in another process it was not played within {SECONDS:g} s", "make its start quicker")
        return
    if done.returncode:
        last = one_line(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        report.say("travel", f"in another process it fails: {last}", HOLDS if "KeyError" not in last else
                   "name the environment variables that it reads: check_environment(env, variables={...})")
        return
    for i, (here, there) in enumerate(zip(sights, json.loads(done.stdout), strict=False)):
        if here != there:
            what = next(name for name, one, other in zip(("text", "key", "terminal", "legal actions"), here, there,
                                                         strict=True) if one != other)
            report.say("travel", f"in another process, {shown(here[0])}, after {i} steps, has another {what}",
                       "let nothing depend on the process: no hash(), no order of a set, no id()")
            return


async def sights_of(env: Environment, task: Task, actions: list[str]) -> list[list[Any]]:
    """Text, key, end and legal actions of the states that `actions` lead through."""
    state = await asking.reset(env, task)
    found = [_sight(env, state)]
    for text in actions:
        state = (await asking.step(env, state, env.action(state, text))).state
        found.append(_sight(env, state))
    return found


def _sight(env: Environment, state: Any) -> list[Any]:
    legal = [action.text for action in env.legal_actions(state)] if env.listable and not state.terminal else []
    return [state.text, state.key, state.terminal, legal]


def elsewhere() -> None:
    """In the other process: play what comes from stdin, and write what is seen; what the world prints goes astray."""
    out = os.dup(1)
    os.dup2(2, 1)
    env, task, actions = cloudpickle.loads(sys.stdin.buffer.read())

    async def play() -> list[list[Any]]:
        try:
            return await sights_of(env, task, actions)
        finally:
            await env.aclose()

    with sealed_reward():
        sights = asyncio.run(play())
    with os.fdopen(out, "w") as file:
        json.dump(sights, file)
