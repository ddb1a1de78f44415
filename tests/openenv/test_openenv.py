"""OpenEnv's protocol against a real server from its own package."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from signatures import EstimateValue
from stl_programs import BeamSearch, GreedySearch, LegalMoves, OpenEnvEnvironment, Value, run_tasks
from stl_programs.environments.checks import check_environment
from stl_programs.errors import StlError, TransientError
from stl_programs.testing import ScriptedModel, answering

pytestmark = pytest.mark.slow
SERVER = Path(__file__).with_name("corridor_server.py")
CORRIDOR = {"seeds": 6, "goal": "find the treasure of corridor", "actions_field": "possible", "max_depth": 4}


@contextmanager
def corridor(*mood: str) -> Iterator[str]:
    python = os.environ.get("STL_OPENENV_PYTHON")
    if not python:
        pytest.skip("set STL_OPENENV_PYTHON to an interpreter with openenv-core, or call `make test-slow`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([python, str(SERVER), str(port), *mood])
    try:
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with corridor() as address:
        yield address


def further_right(inputs, seed):
    """A named fake: it reads the number of the room."""
    number = int(inputs["state"].split()[1])
    return {"rationale": "Rooms were counted.", "score": str(10 if "treasure" in inputs["state"] else 1 + number)}


def searched(env, search=GreedySearch, count=6, **settings):
    program = search(env, LegalMoves(), Value(EstimateValue, ScriptedModel("scripted/rooms", answering(further_right)),
                                              samples=1), **settings)

    async def work():
        results = await run_tasks(program, env.tasks("test")[:count])
        scores = [await env.ascore(env.task(one.task), one.answer) for one in results if one.error is None]
        await env.aclose()
        return results, scores

    return asyncio.run(work())


@pytest.mark.parametrize("search, settings", [(GreedySearch, {}), (BeamSearch, {"width": 2})])
def test_a_search_branches_by_replay_and_finds_every_treasure(url, search, settings):
    results, scores = searched(OpenEnvEnvironment(url, **CORRIDOR), search, **settings)
    assert [one.error for one in results] == [None] * 6
    assert [len(one.trajectory) for one in results] == [1, 2, 3, 1, 2, 3] and scores == [1.0] * 6


def test_sessions_are_given_back(url):
    """A server that allows 64 sessions at once serves many more, one after another."""
    for _ in range(4):
        results, _ = searched(OpenEnvEnvironment(url, **CORRIDOR), BeamSearch, width=3)
        assert [one.error for one in results] == [None] * 6


def test_the_environment_passes_its_checks(url):
    env = OpenEnvEnvironment(url, **CORRIDOR)
    assert list(check_environment(env, tasks=env.tasks("test")[:2], process=False)) == []


def test_a_corridor_that_drifts_is_an_error_that_shows_both_sights():
    with corridor("drifting") as url:
        result = searched(OpenEnvEnvironment(url, **CORRIDOR), BeamSearch, count=3, width=2)[0][2]
        assert "cannot be replayed" in result.error and "entered" in result.error


@pytest.mark.parametrize("settings, said", [
    ({"text_field": "words"}, "shows no text in 'words'; its observations have text, possible"),
    ({"actions_field": "moves"}, "lists no actions in 'moves'"),
    ({"action_field": "move"}, "refuses 'step'")])
def test_fields_of_another_name_are_one_line(url, settings, said):
    async def work():
        env = OpenEnvEnvironment(url, **{**CORRIDOR, **settings})
        try:
            state = await env.areset(env.task("0"))
            await env.astep(state, env.action(state, "right"))
        finally:
            await env.aclose()

    with pytest.raises(StlError, match=said) as refused:
        asyncio.run(work())
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_no_server_is_one_line():
    async def work():
        env = OpenEnvEnvironment("http://127.0.0.1:9", seeds=1)
        try:
            await env.areset(env.task("0"))
        finally:
            await env.aclose()

    with pytest.raises(TransientError, match=r"cannot be reached .*is it running"):
        asyncio.run(work())
