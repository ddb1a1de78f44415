"""Environments that are broken on purpose, each with the one finding that it deserves; sound ones have none."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path

import dspy
import pytest

from signatures import EstimateValue, LabelScale, Lookahead, NumberScale, ProposeActions
from stl_programs import Environment, GameOf24, GymnasiumEnvironment, Judge, SessionEnvironment, check_environment
from stl_programs.environments import Finding, Observation
from stl_programs.environments.checking.report import Findings
from stl_programs.errors import StlError, TaskError, TransientError
from stl_programs.records import Action, State, Task, Transition
from stl_programs.testing import TreeWorld


class Sum(Environment):
    """Three digits are chosen, one after the other; their sum should be the task's number."""

    name, max_depth, scale = "sum", 3, NumberScale(1.0, 10.0)
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def task(self, text):
        if not text.isdecimal():
            raise TaskError(f"{text!r} is no number")
        return Task(text, text)

    def tasks(self, split):
        return [self.task(str(number)) for number in range(9, 12)]

    def state(self, digits, history):
        text = f"chosen: {' '.join(digits)}"
        return State(text, None, history, len(digits) == 3, digits)

    def reset(self, task):
        return self.state((), ())

    def legal_actions(self, state):
        return [] if state.terminal else [Action(digit) for digit in "2345"]

    def step(self, state, action):
        if state.terminal or action.text not in "2345":
            raise TaskError(f"{action.text!r} is not possible")
        after = self.state((*state.data, action.text), (*state.history, action.text))
        return Transition(after, terminated=after.terminal, observation=after.text)

    def answer(self, task, state):
        return " ".join(state.data)

    def _score(self, task, answer):
        return float(sum(map(int, answer.split())) == int(task.text))


class Shop(Sum):
    """The same, and its last choice cannot be undone."""

    def action(self, state, text):
        return Action(text, irreversible=len(state.data) == 2)

    def legal_actions(self, state):
        return [self.action(state, action.text) for action in super().legal_actions(state)]

    def step(self, state, action):
        assert len(state.data) < 2, "what cannot be undone was done"
        return super().step(state, action)

    def answer(self, task, state):
        return " ".join(state.history)


class Served(Sum):
    """The same behind a backend; its payload goes through a journal as a list."""

    pure = False

    def step(self, state, action):
        raise AssertionError("the backend was left out")

    async def astep(self, state, action):
        await asyncio.sleep(0)
        return Sum.step(self, state, action)

    def restore(self, history, row):
        return super().restore(history, {**row, "data": tuple(row["data"])})


class Free(Sum):
    """The same, with actions that cannot be listed."""

    legal_actions = Environment.legal_actions


class Line(SessionEnvironment):
    """A session walks to 3."""

    name, max_depth, scale, lists_actions, cyclic = "line", 6, NumberScale(0.0, 1.0), True, True
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def task(self, text):
        return Task(text, text)

    async def begin(self, task):
        session = {"at": 0}
        return session, self.seen(session)

    def seen(self, session):
        return Observation(f"at {session['at']}", terminated=session["at"] == 3, actions=("left", "right"))

    async def act(self, session, action):
        session["at"] += {"left": -1, "right": 1}[action.text]
        return self.seen(session)

    def answer(self, task, state):
        return state.text

    def _score(self, task, answer):
        return float(answer == "at 3")


def propose(state):
    return ["2", "nine", "5"]


@pytest.mark.parametrize("env", [GameOf24(), TreeWorld(depth=4), Sum(), Shop(), Served(), Line],
                         ids=lambda env: getattr(env, "name", "line"))
def test_sound_environments_have_no_findings(env):
    env, tasks = (env(), ["go"]) if isinstance(env, type) else (env, None)
    found = check_environment(env, tasks=tasks, plays=4)
    assert list(found) == [] and str(found) == "nothing to mend"
    found.raise_any()


def test_gymnasium_worlds_have_no_findings():
    pytest.importorskip("gymnasium")
    for env in (GymnasiumEnvironment("CliffWalking-v1", max_depth=10, reward_range=(-100, 0)),
                GymnasiumEnvironment("Taxi-v4", max_depth=10, reward_range=(-10, 20)),
                GymnasiumEnvironment("Blackjack-v1", max_depth=6, key="path", reward_range=(-1, 1))):
        assert str(check_environment(env, process=env.name == "Taxi-v4")) == "nothing to mend"


def test_luck_that_no_observation_shows_is_found():
    pytest.importorskip("gymnasium")
    slippery = GymnasiumEnvironment("FrozenLake-v1", max_depth=10)
    [finding] = check_environment(slippery, process=False)
    assert "stands for two states" in finding.what
    assert not check_environment(GymnasiumEnvironment("FrozenLake-v1", max_depth=10, key="path"), process=False)


def test_proposals_stand_in_where_actions_cannot_be_listed():
    assert not check_environment(Free(), actions=propose, process=False)
    [finding] = check_environment(Free(), process=False)
    assert "cannot be listed, so no step was taken" in finding.what and "actions=" in finding.cure
    [finding] = check_environment(Free(), actions=lambda state: ["nine", "ten"], process=False)
    assert "every proposal of actions= is refused" in finding.what


def broken(name, base=Sum, /, **members):
    return type(name, (base,), members)


def step_with(change):
    """A step whose transition is changed."""
    def step(self, state, action):
        return change(self, state, action, Sum.step(self, state, action))
    return step


def counting_step(self, state, action):
    self.count = getattr(self, "count", 0) + 1
    after = self.state((*state.data, str(2 + self.count % 4)), (*state.history, action.text))
    return Transition(after, terminated=after.terminal, observation=after.text)


def changing_step(self, state, action):
    state.data.append(action.text)
    after = State(f"chosen: {' '.join(state.data)}", None, (*state.history, action.text), len(state.history) == 2,
                  list(state.data))
    return Transition(after, terminated=after.terminal, observation=after.text)


def standing_reset(self, task):
    self.stands = ()
    return Sum.reset(self, task)


def drifting_step(self, state, action):
    """Right for the play that is going on, and wrong for a state that it has left behind."""
    self.deepest = max(getattr(self, "deepest", 0), len(state.history))
    gone_on = self.deepest > len(state.history)
    if len(state.history) == 0:
        gone_on, self.deepest = False, 0
    digits = (*state.data, "5" if gone_on else action.text)
    after = self.state(digits, (*state.history, action.text))
    return Transition(after, terminated=after.terminal, observation=after.text)


def once_more(self, task):
    """Every reset after the second begins a game in which the digits are other ones."""
    self.resets = getattr(self, "resets", 0) + 1
    return Sum.reset(self, task)


def moody_step(self, state, action):
    digit = action.text if self.resets % 4 else "5"
    after = self.state((*state.data, digit), (*state.history, action.text))
    return Transition(after, terminated=after.terminal, observation=after.text)


def colliding(self, digits, history):
    return State(f"chosen: {' '.join(digits)}", f"{len(digits)} digits", history, len(digits) == 3, digits)


def by_sum(self, digits, history):
    """The key forgets the last digit, on which the next text depends."""
    total = sum(map(int, digits))
    return State(f"{len(digits)} digits", f"{len(digits)} digits", history, len(digits) == 3 or total > 8, digits)


def back_and_forth(self, digits, history):
    return State("end" if len(digits) == 3 else f"room {len(digits) % 2}", None, history, len(digits) == 3, digits)


class OneWord(dspy.Signature):
    state: str = dspy.InputField()
    score: str = dspy.OutputField()


class WithWeather(EstimateValue):
    """Judge by the weather."""

    weather: str = dspy.InputField()


class LineOf(Line):
    tasks = Sum.tasks


def loose_ascore():
    async def ascore(self, task, answer):
        return self._score(task, answer)
    return ascore


BROKEN = {
    "no scale": (lambda: _without("scale"), "there is no `scale`", "write `scale = NumberScale"),
    "depth": (broken("A", max_depth=0), "`max_depth` is '0'", "like 10"),
    "name": (broken("A", name=""), "`name` is ''", 'like "shop"'),
    "signature": (broken("A", policy_signature="x -> y"), "`policy_signature` is 'x -> y'", "dspy.Signature"),
    "outputs": (broken("A", value_signature=OneWord), r"value_signature \(OneWord\) has no output rationale", "add it"),
    "lookahead outputs": (broken("A", lookahead_signature=EstimateValue), "has no output best_action, next_state",
                          "add it"),
    "policy outputs": (broken("A", policy_signature=EstimateValue), "no output actions or action", "list"),
    "scale parse": (broken("A", scale=LabelScale((("*good*", 1.0), ("bad", 0.0)))),
                    r"renders 1 as '\*good\*' and parses that as None", "parse what render gives"),
    "judge outputs": (broken("A", judges={"page": Judge(OneWord)}), r"judges\['page'\].signature .*no output rationale",
                      "add it"),
    "page": (broken("A", page=lambda self, situation: "cart"), "page gives 'cart' .* `judges` has none",
             "add that judge"),
    "unknown input": (broken("A", value_signature=WithWeather), r"value_signature \(WithWeather\) asks for 'weather', "
                      "which fields does not know", "super.*fields"),
    "input that is no JSON": (
        broken("A", value_signature=WithWeather, fields=lambda self, situation: {
            **Environment.fields(self, situation), "weather": {1, 2}}), "gives for 'weather' what is no JSON", "text"),
    "fields raises": (broken("A", fields=lambda self, situation: {}["x"]), r"fields raised KeyError: 'x' \(test_checks",
                      "mend it"),
    "no tasks": (broken("A", tasks=Environment.tasks), r"tasks\('train'\) raised StlError", "pass check_environment"),
    "empty split": (broken("A", tasks=lambda self, split: []), "no task to play", "pass check_environment"),
    "task ids": (broken("A", tasks=lambda self, split: [Task("9", "9")] * 2), "the task id '9' is there 2 times",
                 "id of its own"),
    "task round trip": (broken("A", task=lambda self, text: Task(f"task {text}", f"{text} ".lstrip("0"))),
                        "and not those of the task that has this text", "must give the same task"),
    "task fields": (broken("A", tasks=lambda self, split: [Task("9", "9", {"x": {1}})]), "fields of task '9' are no "
                    "JSON", "keep them JSON"),
    "task raises": (broken("A", tasks=lambda self, split: [Task("nine", "nine")]), "task raised TaskError: 'nine' is "
                    "no number", "accept what the world itself gave"),
    "reset differs": (broken("A", reset=lambda self, task: State(f"game {uuid.uuid4()}", None, (), False, ())),
                      "'9' begins as 'game .* and then as 'game ", "always begins the same"),
    "reset history": (broken("A", reset=lambda self, task: self.state((), ("start",))), "a history of 1 actions",
                      "begin with an empty one"),
    "key that is no text": (broken("A", reset=lambda self, task: State("start", 3)), "reset raised TypeError: "
                            r"State\(key=3\)", "mend it"),
    "key that differs": (broken("A", step=step_with(lambda self, state, action, step: Transition(
        State(step.state.text, str(uuid.uuid4()), step.state.history, step.state.terminal, step.state.data),
        step.terminated, observation=step.observation))), "taken twice in 'chosen:' shows 'chosen: .' ", "chance"),
    "step counts": (broken("A", step=counting_step), "taken twice in 'chosen:' shows 'chosen: . 'and then|taken twice "
                    "in 'chosen:' shows", "keep nothing in the environment that a step changes"),
    "state changed": (broken("A", reset=lambda self, task: State("chosen:", None, (), False, []), step=changing_step,
                             answer=lambda self, task, state: " ".join(state.data)),
                      "the step '.' changed the state 'chosen:' that it began in", "immutable, or copy it"),
    "branch": (broken("A", step=drifting_step), "after the play had gone on, '.' in 'chosen: .' shows",
               "step from the state that is given"),
    "replay": (broken("A", reset=once_more, step=moody_step), "played again from its start, '.' after . steps shows",
               "seed every chance"),
    "history": (broken("A", step=step_with(lambda self, state, action, step: Transition(self.state(
        step.state.data, (action.text,)), step.terminated))), "the history is .*, and it was", r"state.then\("),
    "terminated only": (broken("A", max_depth=4, state=lambda self, digits, history: State(
        f"chosen: {' '.join(digits)}", None, history, len(digits) == 4, digits), step=lambda self, state, action:
        Transition(s := self.state((*state.data, action.text), (*state.history, action.text)), len(s.history) == 3)),
        "says that the task ended, and its state is not terminal", "terminal=True"),
    "observation": (broken("A", step=step_with(lambda self, state, action, step: Transition(
        step.state, step.terminated, observation=None))), "shows a str and observes a NoneType", "give a str"),
    "max_depth": (broken("A", max_depth=2), "none of 8 plays came to an end within max_depth=2 steps",
                  "raise max_depth"),
    "one key, two texts": (broken("A", state=colliding), "the key '1 digits' stands for two texts", "into the key"),
    "one key, two ends": (broken("A", state=by_sum), "the key '2 digits' stands for two states", "into the key"),
    "cycle": (broken("A", state=back_and_forth), "comes twice on one path, and `cyclic` is False",
              "set `cyclic = True`"),
    "actions at an end": (broken("A", legal_actions=lambda self, state: [Action("2"), Action("5")]),
                          "the terminal state 'chosen: . . .' has legal actions, like '2'", "list none"),
    "dead end": (broken("A", legal_actions=lambda self, state: [Action("2")] if len(state.data) < 2 else []),
                 "'chosen: 2 2' is not terminal and has no legal action", "make it terminal"),
    "actions twice": (broken("A", legal_actions=lambda self, state: [] if state.terminal else [Action("2")] * 2),
                      "lists an action twice", "one per distinct next state"),
    "legal actions raises": (broken("A", legal_actions=lambda self, state: [Action(d) for d in state.date]),
                             "legal_actions raised AttributeError: 'State' object has no attribute 'date'", "mend it"),
    "refuses what is legal": (broken("A", legal_actions=lambda self, state: [] if state.terminal else [Action("9")]),
                              "step raised TaskError: '9' is not possible", "accept what the world itself gave"),
    "action": (broken("A", action=lambda self, state, text: Action(f"choose {text}")), r"action\(state, '2'\) gives "
               "Action", "give the same Action"),
    "unmarked action": (broken("A", Shop, legal_actions=lambda self, state: [
        Action(a.text, True) for a in Sum.legal_actions(self, state)]), "gives Action.text='2', irreversible=False",
        "cannot be undone"),
    "leaf": (broken("A", Shop, leaf=lambda self, state, action: Transition(State("bought", "bought"))),
             "the leaf of '2', which cannot be undone, has terminal=False, untaken=False and 0 actions",
             "as Environment.leaf does"),
    "successors": (broken("A", successors=lambda self, state: Environment.successors(self, state)[1:]),
                   "successors lists 3 of 'chosen:', which are not the 4", "say the same"),
    "answer": (broken("A", answer=lambda self, task, state: state.data, _score=lambda self, task, answer: 0.0),
               "answer gives a tuple", "give a str"),
    "score range": (broken("A", _score=lambda self, task, answer: 24.0), "scores 24.0", "from 0 to 1"),
    "score kind": (broken("A", _score=lambda self, task, answer: None), "scores None", "from 0 to 1"),
    "score differs": (broken("A", _score=lambda self, task, answer: random.random()), "scores 0.*, and then 0",
                      "depends on the task and the answer alone"),
    "score raises": (broken("A", _score=lambda self, task, answer: 1 / 0), "ascore raised ZeroDivisionError", "mend"),
    "solved": (broken("A", solved=lambda self, score: score), r"solved\(\d\) gives a float", "True or False"),
    "sealed": (broken("A", score=lambda self, task, answer: self._score(task, answer)), "can be read during a "
               "reward-free search", "write _score"),
    "sealed, async": (broken("A", ascore=loose_ascore()), "can be read during a reward-free search", "check_sealed"),
    "reads the reward": (broken("A", reset=lambda self, task: State(str(self.score(task, "2 3 4")), None, (), False,
                                                                    ())), "reset raised RewardSealed", "do what"),
    "journal": (broken("A", Served, record=lambda self, step: {**Environment.record(self, step), "data": {1, 2}}),
                "record gives what is no JSON", "override record and restore together"),
    "restored": (broken("A", Served, restore=lambda self, history, row: Environment.restore(
        self, history[:-1], row)), r"restore\(record\(step\)\) gives", "override record and restore together"),
    "restored data": (broken("A", Served, legal_actions=lambda self, state: [] if state.terminal else [Action(
        str(2 + (hash(state.data) and 0)))], restore=Environment.restore), "legal_actions of a restored state raises "
        "TypeError", "keep State.data JSON"),
    "hangs": (broken("A", Served, timeout=0.01, astep=lambda self, state, action: asyncio.sleep(60)),
              "astep raised TimeoutError", "look at the backend"),
    "always busy": (broken("A", Served, retries=1, areset=lambda self, task: _busy()),
                    "areset raised TransientError: busy", "look at the backend"),
    "step is a state": (broken("A", step=lambda self, state, action: Sum.step(self, state, action).state),
                        "step gives a State where a Transition belongs", r"return Transition\(state"),
    "reset is a text": (broken("A", reset=lambda self, task: "start"), "reset gives a str where a State belongs",
                        r"return State\(text\)"),
    "actions are texts": (broken("A", legal_actions=lambda self, state: list("23")),
                          "legal_actions gives a str where a Action belongs", r"list Action\(text\)"),
    "tasks are texts": (broken("A", tasks=lambda self, split: ["9"]), r"tasks\('train'\) gives a str", "return Task"),
    "task is a text": (broken("A", tasks=lambda self, split: [Task("9", "9")], task=lambda self, text: text),
                       "task gives a str where a Task belongs", "return Task"),
    "aclose": (broken("A", Served, aclose=lambda self: _failing()), "aclose raised OSError: gone", "mend it"),
    "session": (broken("A", LineOf, act=lambda self, session, action: _clock(self, session, action)),
                "taken twice in 'at 0' shows .at ..?, . o'clock", "keep nothing in the environment"),
    "half a means": (broken("A", LineOf, copy=lambda self, session: _failing()), "astep raised TypeError: A has copy "
                     "and no look", "mend it"),
    "deepcopy": (broken("A", __init__=lambda self: setattr(self, "lock", threading.Lock())),
                 "a deepcopy of the environment raises TypeError: cannot pickle", "__getstate__"),
    "pickle": (broken("A", __init__=lambda self: setattr(self, "log", _Copied())),
               "cannot be sent to another process: TypeError", "__getstate__"),
}


async def _busy():
    raise TransientError("busy", retry_after=0.0)


class _Copied:
    """Can be copied, and not sent."""

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("this stays here")


def _without(name):
    """An environment that forgot an attribute."""
    members = {key: value for key, value in vars(Sum).items() if key != name and not key.startswith("__")}
    return type("Forgot", (Environment,), members)()


async def _failing():
    raise OSError("gone")


async def _clock(self, session, action):
    seen = await Line.act(self, session, action)
    self.clock = getattr(self, "clock", 0) + 1
    return seen._replace(text=f"{seen.text}, {self.clock} o'clock")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_environment_has_exactly_this_finding(fault):
    make, what, cure = BROKEN[fault]
    found = check_environment(make(), plays=8, process=False)
    assert len(found) == 1, str(found)
    assert re.search(what, found[0].what), str(found)
    assert re.search(cure, found[0].cure), str(found)
    assert "\n" not in str(found[0])


def test_what_depends_on_the_process_is_found_in_another():
    class Hashed(Sum):
        def state(self, digits, history):
            return super().state(digits, history).__class__(f"chosen: {' '.join(digits)}", str(hash(str(digits))),
                                                            history, len(digits) == 3, digits)

    [finding] = check_environment(Hashed(), plays=2)
    assert "in another process, 'chosen:', after 0 steps, has another key" in finding.what and "hash()" in finding.cure
    assert not check_environment(Hashed(), plays=2, process=False)


def test_what_fails_in_another_process_is_found():
    class Bound(Sum):
        def __init__(self):
            self.home = os.getpid()

        def __setstate__(self, state):
            if os.getpid() != state["home"]:
                raise OSError("only at home")

    [finding] = check_environment(Bound(), plays=1)
    assert "in another process it fails: OSError: only at home" in finding.what and "__getstate__" in finding.cure
    assert not check_environment(Bound(), plays=1, process=False)


def test_a_backend_that_is_busy_at_times_is_asked_again():
    class Busy(Served):
        asked = 0

        async def astep(self, state, action):
            Busy.asked += 1
            if Busy.asked % 3 == 0:
                raise TransientError("busy", retry_after=0.0)
            return await super().astep(state, action)

    assert not check_environment(Busy(), process=False)


def test_a_script_s_own_classes_are_as_before_afterwards(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent("""
        from stl_programs import check_environment
        from tests.stl_programs.environments.test_checks import Sum

        LOOKS = []

        class Counted(Sum):
            def legal_actions(self, state):
                LOOKS.append(state.text)
                return super().legal_actions(state)

        if __name__ == "__main__":
            env = Counted()
            print(check_environment(env))
            before = len(LOOKS)
            env.legal_actions(env.reset(env.task("9")))
            print(len(LOOKS) - before)
    """))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    assert done.stdout == "nothing to mend\n1\n"


def test_what_cannot_be_undone_is_never_done():
    env = Shop()
    done = []
    env.astep = env.commit = lambda *what: done.append(what)
    assert not check_environment(env, process=False) and not done


def test_findings_print_and_raise():
    found = check_environment(broken("A", max_depth=2, _score=lambda self, task, answer: 7.0)(), process=False)
    assert len(found) == 2 and str(found).count("\n") == 1 and all(isinstance(one, Finding) for one in found)
    with pytest.raises(StlError, match=r"2 to mend\n- the answer .*: give a float.*\n- none of 5 plays came to an end"):
        found.raise_any()
    assert str(Findings()) == "nothing to mend"


def test_one_seed_finds_the_same_and_a_notebook_can_ask():
    texts = {str(check_environment(broken("A", state=colliding)(), seed=3, process=False)) for _ in range(2)}
    assert len(texts) == 1

    async def notebook():
        return check_environment(Sum(), process=False)

    assert not asyncio.run(notebook())
    with pytest.raises(ValueError, match="plays=0: at least 1"):
        check_environment(Sum(), plays=0)
