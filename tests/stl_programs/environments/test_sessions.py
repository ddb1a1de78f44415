"""A backend whose sessions change: every way to branch gives the same states, and says where it does not hold."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle

import pytest

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import BeamSearch, LegalMoves, Policy, SessionEnvironment, run_sync, run_tasks
from stl_programs.engine import read_journal
from stl_programs.environments import Observation
from stl_programs.errors import StlError, TaskError, TransientError
from stl_programs.records import Action, Task, ValueEstimate
from stl_programs.testing import ScriptedModel
from stl_programs.values import BaseValue

MOVES = ("left", "right")


class Backend:
    """Walks on a line, one a session; every step changes its session. Counts what it was asked."""

    def __init__(self):
        self.ids, self.sessions = itertools.count(), {}
        self.busy, self.begun, self.steps, self.ended = set(), 0, 0, 0

    def new(self, at=0):
        session = next(self.ids)
        self.sessions[session] = at
        return session

    async def step(self, session, move):
        assert session not in self.busy, "two steps at once in one session"
        self.busy.add(session)
        await asyncio.sleep(0)
        self.steps += 1
        self.sessions[session] += {"left": -1, "right": 1}[move]
        self.busy.remove(session)
        return self.text(session)

    def text(self, session):
        return f"at {self.sessions[session]}"


class Line(SessionEnvironment):
    """Go to 3. It has no means to branch but to be played again."""

    name, max_depth, scale, lists_actions, cyclic = "line", 4, NumberScale(0.0, 1.0), True, True
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def __init__(self):
        self.backend = Backend()

    def task(self, text):
        return Task(text, text)

    def seen(self, session):
        at = self.backend.sessions[session]
        return Observation(self.backend.text(session), terminated=at == 3, actions=MOVES)

    async def begin(self, task):
        self.backend.begun += 1
        session = self.backend.new()
        return session, self.seen(session)

    async def act(self, session, action):
        await self.backend.step(session, action.text)
        return self.seen(session)

    async def end(self, session):
        self.backend.ended += 1
        del self.backend.sessions[session]

    def answer(self, task, state):
        return state.text

    def _score(self, task, answer):
        return float(answer == "at 3")


class Saving(Line):
    async def snapshot(self, session):
        return self.backend.sessions[session]

    async def recover(self, task, snapshot):
        return self.backend.new(snapshot)


class Copying(Line):
    async def copy(self, session):
        return self.backend.new(self.backend.sessions[session])

    async def look(self, session):
        return self.seen(session)


class Further(BaseValue):
    """Further to the right is better."""

    async def estimate(self, situation):
        return ValueEstimate((int(situation.state.text.removeprefix("at ")) + 4) / 8)


async def walk(env, *moves):
    state = await env.areset(env.task("go"))
    for move in moves:
        state = (await env.astep(state, Action(move))).state
    return state


@pytest.mark.parametrize(("kind", "means"), [(Line, "replay"), (Saving, "snapshot"), (Copying, "copy")])
def test_every_means_gives_the_same_search_and_every_session_is_ended(kind, means):
    env = kind()
    assert env.branching == means
    [result] = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Further(), width=3), ["go"], keep_trees=True))
    assert result.error is None and result.answer == "at 3" and result.trajectory == ["right"] * 3
    assert {node["state"] for node in result.tree["nodes"]} == {f"at {at}" for at in range(-4, 4)}
    assert not env.backend.sessions and env.backend.ended == next(env.backend.ids)


@pytest.mark.parametrize(("kind", "begun", "steps"), [(Line, 2, 6), (Saving, 1, 4), (Copying, 1, 4)])
def test_going_on_costs_one_step_and_going_back_what_the_world_makes_it_cost(kind, begun, steps):
    env = kind()

    async def play():
        state = await walk(env, "right", "right")
        assert env.backend.steps == 2 and env.backend.begun == 1
        for move in MOVES:
            after = (await env.astep(state, Action(move))).state
            assert after.text == {"left": "at 1", "right": "at 3"}[move] and state.text == "at 2"
        assert after.terminal and after.history == ("right", "right", "right")
        await env.aclose()

    run_sync(play())
    assert (env.backend.begun, env.backend.steps) == (begun, steps)


@pytest.mark.parametrize("kind", [Line, Saving, Copying])
def test_siblings_at_once_never_share_a_session(kind):
    env = kind()

    async def play():
        state = await walk(env, "right")
        steps = await asyncio.gather(*(env.astep(state, Action(move)) for move in MOVES * 3))
        assert [step.state.text for step in steps] == ["at 0", "at 2"] * 3
        await env.aclose()
        assert not env.backend.sessions

    run_sync(play())


@pytest.mark.parametrize("kind", [Line, Saving, Copying])
def test_few_sessions_wait_and_what_was_ended_is_found_again(kind):
    env = kind()
    env.parked, env.snapshots = 2, 1

    async def play():
        states = [await walk(env, *moves) for moves in itertools.product(MOVES, repeat=2)]
        assert len(env.backend.sessions) <= 2
        for state in states:
            assert (await env.astep(state, Action("left"))).state.text == f"at {int(state.text[3:]) - 1}"
            assert len(env.backend.sessions) <= 2
        await env.aclose()

    run_sync(play())


def test_a_trajectory_ends_at_the_last_step():
    env = Line()
    env.max_depth = 2
    state = run_sync(walk(env, "right", "left"))
    early = run_sync(walk(env))
    assert state.terminal and state.text == early.text and state.key != early.key
    assert env.legal_actions(state) == []


def test_what_is_not_listed_is_refused_before_it_is_sent():
    env = Line()

    async def play():
        state = await walk(env)
        with pytest.raises(TaskError, match="'up' is not possible in 'at 0'; possible are left, right"):
            await env.astep(state, Action("up"))
        assert env.backend.steps == 0

    run_sync(play())
    model = ScriptedModel("scripted/walker", lambda messages, seed: "up ; right")
    result = BeamSearch(env, Policy(env.policy_signature, model, format="compact"), Further())(task="go")
    assert result.answer == "at 3"


def test_a_refusal_leaves_the_session_where_it_stands():
    class Refusing(Line):
        lists_actions = False

        async def act(self, session, action):
            if action.text not in MOVES:
                raise TaskError(f"no such move: {action.text}")
            return (await super().act(session, action))._replace(actions=None)

        def seen(self, session):
            return super().seen(session)._replace(actions=None)

    env = Refusing()
    assert not env.listable

    async def play():
        state = await walk(env, "right")
        with pytest.raises(TaskError):
            await env.astep(state, Action("up"))
        await env.astep(state, Action("right"))
        assert env.backend.begun == 1 and env.backend.steps == 2

    run_sync(play())


def test_a_failed_step_ends_its_session_and_is_sent_again_from_the_start():
    class Flaky(Line):
        failures = 1

        async def act(self, session, action):
            seen = await super().act(session, action)
            if self.failures and action.text == "right":
                self.failures -= 1
                raise TransientError("the line is cut")
            return seen

    env = Flaky()
    result = BeamSearch(env, LegalMoves(), Further(), width=1)(task="go")
    assert result.answer == "at 3" and not env.backend.sessions


def test_a_replay_that_shows_something_else_names_both():
    class Clock(Line):
        async def act(self, session, action):
            seen = await super().act(session, action)
            return seen._replace(text=f"{seen.text}, {self.backend.steps} o'clock")

    async def play(env):
        state = await walk(env, "right", "right")
        for move in MOVES:
            await env.astep(state, Action(move))

    env = Clock()
    with pytest.raises(StlError, match=r"line cannot be replayed: 'right', step 1 of 'go', showed \"at 1, 1 o'clock\" "
                                       r"and now shows \"at 1, 4 o'clock\"; give the world snapshot and recover"):
        run_sync(play(env))
    assert len(env.backend.sessions) == 1  # the one that waits


def test_a_replay_that_is_refused_says_so():
    class Tired(Line):
        async def act(self, session, action):
            if self.backend.begun > 1:
                raise TaskError("too tired")
            return await super().act(session, action)

    async def play(env):
        state = await walk(env, "right")
        for move in MOVES:
            await env.astep(state, Action(move))

    with pytest.raises(StlError, match=r"'right', after 0 steps, was taken before and is now refused \(too tired\)"):
        run_sync(play(Tired()))


def test_a_copy_that_shows_something_else_is_an_error():
    class Resetting(Copying):
        async def copy(self, session):
            return self.backend.new(0)

    with pytest.raises(StlError, match="the state showed 'at -1', and a copy of its session shows 'at 0'; mend copy"):
        run_sync(walk(Resetting(), "left", "left"))


def test_a_step_in_a_copy_that_changes_the_original_is_an_error():
    class Shallow(Copying):
        async def copy(self, session):
            return session

    with pytest.raises(StlError, match="the state showed 'at 0', and after a step in a copy it shows 'at 1'"):
        run_sync(walk(Shallow(), "right"))


@pytest.mark.parametrize(("written", "missing"), [("snapshot", "recover"), ("recover", "snapshot"), ("copy", "look")])
def test_half_a_means_is_refused(written, missing):
    half = type("Half", (Line,), {written: getattr(Saving if written in ("snapshot", "recover") else Copying, written)})
    with pytest.raises(TypeError, match=f"Half has {written} and no {missing}"):
        run_sync(walk(half(), "right"))


@pytest.mark.parametrize("kind", [Line, Saving, Copying])
def test_a_journal_goes_on_without_asking_again(tmp_path, kind):
    env, path = kind(), tmp_path / "journal.jsonl"
    program = BeamSearch(env, LegalMoves(), Further(), width=2)
    [whole] = run_sync(run_tasks(program, ["go"], journal=path, keep_trees=True))
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in data[:len(data) // 2]))
    kept = len(read_journal(path).steps)
    assert kept
    again = kind()
    [result] = run_sync(run_tasks(BeamSearch(again, LegalMoves(), Further(), width=2), ["go"], journal=path,
                                  keep_trees=True))
    assert result.error is None and result.answer == whole.answer
    assert {node["key"] for node in result.tree["nodes"]} == {node["key"] for node in whole.tree["nodes"]}
    assert again.backend.begun and not again.backend.sessions


def test_a_replay_of_a_journaled_path_is_compared_too(tmp_path):
    env = Line()
    step = run_sync(env.astep(run_sync(walk(env, "right")), Action("right")))
    row = env.record(step)
    other = Line()
    back = other.restore(("right", "right"), row).state
    assert back == step.state and run_sync(other.astep(back, Action("left"))).state.text == "at 1"

    class Moved(Line):
        async def act(self, session, action):
            return (await super().act(session, action))._replace(text="elsewhere")

    with pytest.raises(StlError, match=r"showed a text of digest [0-9a-f]+ .* and now shows 'elsewhere'"):
        run_sync(Moved().astep(back, Action("left")))


def test_it_travels_without_its_sessions():
    env = Saving()
    state = run_sync(walk(env, "right"))
    for other in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert run_sync(other.astep(pickle.loads(pickle.dumps(state)), Action("right"))).state.text == "at 2"


def test_what_is_no_observation_and_what_is_no_state_are_named():
    class Wrong(Line):
        async def act(self, session, action):
            return 3

    with pytest.raises(TypeError, match="a session showed a int"):
        run_sync(walk(Wrong(), "right"))
    with pytest.raises(StlError, match=r"await areset\(task\)"):
        Line().reset(Task("go", "go"))
    with pytest.raises(StlError, match=r"await astep\(state, action\)"):
        Line().step(run_sync(walk(Line())), Action("left"))
