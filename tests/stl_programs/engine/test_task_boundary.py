"""What a part of a program does wrong is its task's error; what is finished, and what a journal holds, stands."""

from __future__ import annotations

import asyncio
import math
from functools import partial

import pytest

from stl_programs import (
    MCTS,
    BeamSearch,
    Budget,
    Environment,
    GreedySearch,
    LegalMoves,
    Policy,
    Tree,
    Uniform,
    Value,
    lm,
    run_sync,
    run_tasks,
)
from stl_programs.errors import JournalError, StlError, TaskError, TransientError
from stl_programs.records import Action, State, Transition, ValueEstimate
from stl_programs.testing import ScriptedModel, Simulator, TreeWorld, answering


class Odd(TreeWorld):
    """Goes wrong in the ways that are passed."""

    def __init__(self, raises=None, closing=None):
        super().__init__(depth=2, branching=2, transpositions=0.0)
        self.raises, self.closing = raises, closing

    def answer(self, task, state):
        if self.raises and task.text == "1":
            raise self.raises
        return super().answer(task, state)

    async def aclose(self):
        if self.closing:
            raise self.closing


class Cancelling(Odd):
    """Awaits something that was cancelled."""

    pure = False

    async def areset(self, task):
        if task.text == "1":
            inner = asyncio.ensure_future(asyncio.sleep(9))
            inner.cancel()
            await inner
        return self.reset(task)

    async def astep(self, state, action):
        return self.step(state, action)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def answers(env, **options):
    return run_sync(run_tasks(GreedySearch(env, LegalMoves(), Uniform()), ["0", "1", "2"], **options))


@pytest.mark.parametrize(("env", "said"), [
    (Cancelling(), "CancelledError: something that it awaited"),
    (Odd(Unspeakable()), "Unspeakable: (its text cannot be read: RuntimeError)"),
    (Odd(StlError("the shop answers 500")), "StlError: the shop answers 500")])
def test_an_error_is_its_tasks_with_its_traceback(env, said):
    before, failed, after = answers(env)
    assert failed.error.startswith(said) and "Traceback" in failed.traceback and failed.answer is None
    assert before.answer and after.answer and not before.error


def test_cancelling_a_run_ends_it():
    async def main():
        env = Odd()
        env.pure = False
        env.areset = lambda task: asyncio.sleep(60)
        running = asyncio.ensure_future(run_tasks(GreedySearch(env, LegalMoves(), Uniform()), ["0"]))
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_a_world_that_cannot_be_closed_spoils_no_result():
    for closing in (OSError("gone"), SystemExit("gone")):
        with pytest.warns(RuntimeWarning, match=f"tree world was not closed: {type(closing).__name__}: gone"):
            assert [bool(result.answer) for result in answers(Odd(closing=closing))] == [True] * 3


def test_a_purchase_that_fails_leaves_the_answer_and_what_was_not_taken():
    class Shop(TreeWorld):
        def successors(self, state):
            actions = [Action(action.text, irreversible=True) for action, _ in super().successors(state)]
            return [(action, self.leaf(state, action)) for action in actions]

        async def commit(self, task, state, action):
            raise OSError("the line was cut")

    env = Shop(depth=1, branching=2, transpositions=0.0)
    [result] = run_sync(run_tasks(GreedySearch(env, LegalMoves(), Uniform()), ["0"], commit=True))
    assert "the line was cut" in result.error and result.untaken and result.answer and result.committed is None


class Counter(TreeWorld):
    """One purchase, as its counter says; `sold` counts what was sent."""

    def __init__(self, raises=None):
        super().__init__(depth=1, branching=2, transpositions=0.0)
        self.raises, self.sold = raises, 0

    def successors(self, state):
        actions = [Action(action.text, irreversible=True) for action, _ in super().successors(state)]
        return [(action, self.leaf(state, action)) for action in actions]

    async def commit(self, task, state, action):
        self.sold += 1
        if self.raises:
            raise self.raises
        return Transition(state.then(action.text, "bought", terminal=True), True)


def test_a_purchase_that_is_refused_is_refused_again_and_one_in_doubt_is_not_sent_again(tmp_path):
    def buying(env, name):
        program = GreedySearch(env, LegalMoves(), Uniform())
        return run_sync(run_tasks(program, ["0"], journal=tmp_path / name, commit=True))[0]

    closed, broken = Counter(TaskError("closed today")), Counter(TransientError("cut"))
    assert buying(closed, "a").error == "TaskError: closed today" and buying(broken, "b").error.startswith(
        "StlError: taking ")
    unsure = buying(Counter(TransientError("cut")), "c").error
    assert "TransientError: cut; it is not sent again, as it may have been done" in unsure
    again, doubt = Counter(), Counter()
    assert buying(again, "a").error == "TaskError: closed today" and not again.sold
    assert "what came of it is not known" in buying(doubt, "b").error and not doubt.sold


def test_what_was_chosen_by_an_earlier_run_is_taken_when_that_is_wanted(tmp_path):
    env = Counter()
    program = GreedySearch(env, LegalMoves(), Uniform())
    [chosen] = run_sync(run_tasks(program, ["0"], journal=tmp_path / "j"))
    assert chosen.untaken and not env.sold
    for _ in range(2):
        [taken] = run_sync(run_tasks(program, ["0"], journal=tmp_path / "j", commit=True))
        assert taken.committed == chosen.untaken and taken.untaken is None and env.sold == 1


def test_a_prediction_says_what_was_taken():
    prediction = GreedySearch(Counter(), LegalMoves(), Uniform())(task="0", commit=True)
    assert prediction.committed == prediction.trajectory[-1] and prediction.untaken is None


class Careless(TreeWorld):
    """Gives a state where a transition belongs."""

    successors = Environment.successors

    def legal_actions(self, state):
        return [] if state.terminal else [Action("0")]

    def step(self, state, action):
        return super().step(state, action).state


def test_a_world_that_gives_another_kind_of_thing_is_told_which():
    with pytest.raises(StlError, match=r"a step of tree world gives a State: return Transition\(state, terminated="):
        GreedySearch(Careless(), LegalMoves(), Uniform())(task="0")
    env = TreeWorld()
    env.reset = lambda task: task.text
    with pytest.raises(StlError, match=r"the reset of tree world gives a str: return State\(text\)"):
        GreedySearch(env, LegalMoves(), Uniform())(task="0")


def test_a_result_without_a_tree_says_why():
    with pytest.raises(ValueError, match="run with keep_trees=True, and leave out results with an error"):
        Tree.from_dict(None)


# What a journal is continued with

class Deep(TreeWorld):
    pass


class Cyclic(TreeWorld):
    cyclic = True


def uniform(env, **options):
    return BeamSearch(env, LegalMoves(), Uniform(), **options)


@pytest.mark.parametrize(("other", "named"), [
    (uniform(TreeWorld(depth=3)), "environment.max_depth is 2, here it is 3"),
    (uniform(TreeWorld(depth=2, branching=3)), "environment.branching is 5, here it is 3"),
    (uniform(Cyclic(depth=2)), "environment.cyclic is false, here it is true")])
def test_a_journal_of_another_world_is_refused(tmp_path, other, named):
    run_sync(run_tasks(uniform(TreeWorld(depth=2)), ["0"], journal=tmp_path / "j"))
    with pytest.raises(JournalError, match=named):
        run_sync(run_tasks(other, ["0"], journal=tmp_path / "j"))
    run_sync(run_tasks(uniform(Deep(depth=2)), ["0"], journal=tmp_path / "j"))


def test_functions_without_a_name_are_told_apart(tmp_path):
    def search(weight):
        return MCTS(TreeWorld(depth=2), LegalMoves(), Uniform(), simulations=3,
                    selection=lambda parent, children, q, c: [weight * one for one in q])

    run_sync(run_tasks(search(1.0), ["0"], journal=tmp_path / "j"))
    run_sync(run_tasks(search(1.0), ["0"], journal=tmp_path / "j"))
    with pytest.raises(JournalError, match=r"selection\.code"):
        run_sync(run_tasks(search(-1.0), ["0"], journal=tmp_path / "j"))


def test_another_server_is_another_run_unless_the_run_is_named(tmp_path):
    answer = answering(lambda inputs, seed: {"rationale": "so", "score": "0.5"})
    env = TreeWorld(depth=1, branching=2, transpositions=0.0)

    def asking(server, **options):
        value = Value(env.value_signature, lm("hosted_vllm/m", api_base=server.url), samples=1)
        return run_sync(run_tasks(GreedySearch(env, LegalMoves(), value), ["0"], **options))

    with Simulator(lambda messages, model, seed: answer(messages, seed), ["m"]) as one:
        asking(one, journal=tmp_path / "j")
        asking(one, journal=tmp_path / "named", fingerprint={"program": "greedy, m"})
    with Simulator(lambda messages, model, seed: answer(messages, seed), ["m"]) as other:
        with pytest.raises(JournalError, match=r"connection\.api_base is"):
            asking(other, journal=tmp_path / "j")
        asking(other, journal=tmp_path / "named", fingerprint={"program": "greedy, m"})
        assert not other.requests


def test_what_failed_is_tried_again_and_what_was_paid_is_not_paid_again(tmp_path):
    model = ScriptedModel("m/a", answering(lambda inputs, seed: {"rationale": "so", "score": "0.5"}))

    def search(env):
        return GreedySearch(env, LegalMoves(), Value(env.value_signature, model, samples=1))

    first = run_sync(run_tasks(search(Odd(OSError("down"))), ["0", "1"], journal=tmp_path / "j"))
    paid = len(model.requests)
    again = run_sync(run_tasks(search(Odd()), ["0", "1"], journal=tmp_path / "j"))
    assert first[1].error and again[0] == first[0] and again[1].answer and len(model.requests) == paid


def test_a_tree_that_an_earlier_run_did_not_keep_is_grown_again_for_nothing(tmp_path):
    model = ScriptedModel("m/a", answering(lambda inputs, seed: {"rationale": "so", "score": "0.5"}))
    env = TreeWorld(depth=2, branching=2, transpositions=0.0)
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, model, samples=1))
    [bare] = run_sync(run_tasks(program, ["0"], journal=tmp_path / "j"))
    paid = len(model.requests)
    [whole] = run_sync(run_tasks(program, ["0"], journal=tmp_path / "j", keep_trees=True))
    assert bare.tree is None and whole.tree["answer"] == bare.answer == whole.answer
    assert len(model.requests) == paid and whole.usage["value"]["calls"] == bare.usage["value"]["calls"]


def test_a_larger_budget_of_every_task_goes_on(tmp_path):
    model = ScriptedModel("m/a", answering(lambda inputs, seed: {"rationale": "so", "score": "0.5"}))
    env = TreeWorld(depth=3, branching=2, transpositions=0.0)

    def ended(calls):
        search = BeamSearch(env, LegalMoves(), Value(env.value_signature, model, samples=1), width=2,
                            budget=Budget(calls=calls))
        return run_sync(run_tasks(search, ["0"], journal=tmp_path / "j"))[0].ended

    assert "budget of 3 calls" in ended(3)
    paid = len(model.requests)
    assert "budget of 3 calls" in ended(3) and len(model.requests) == paid == 3
    assert ended(300) is None
    assert len({str(messages) for messages, _ in model.requests}) == len(model.requests), "nothing was paid twice"


# Cycles, and what is asked at once

class Ring(TreeWorld):
    """Seven places; a step goes on, or back to where it came from."""

    cyclic, max_depth = True, 6

    def reset(self, task):
        return State("0", data=0)

    def legal_actions(self, state):
        return [Action("back"), Action("stay"), Action("on")]

    def step(self, state, action):
        place = state.data + {"back": -1, "stay": 0, "on": 1}[action.text]
        return Transition(state.then(action.text, str(place), terminal=place == 6, data=place), place == 6)

    def answer(self, task, state):
        return state.text


@pytest.mark.parametrize("options", [{"count": 1}, {"count": 2}, {"count": 1, "distinct": False}])
def test_actions_that_lead_back_do_not_use_up_what_a_policy_names(options):
    def named(inputs, seed):
        left = [one for one in ("back", "stay", "on") if one not in inputs["not_allowed"]]
        return {"actions": left[:int(inputs["count"])]}

    env = Ring()
    policy = Policy(env.policy_signature, ScriptedModel("m/a", answering(named)), **options)
    prediction = GreedySearch(env, policy, Uniform())(task="0")
    assert prediction.trajectory in (["on"] * 6, ["back"] * 6)


def test_independent_draws_look_past_what_leads_back():
    model = ScriptedModel("m/a", answering(lambda inputs, seed: {"actions": ["stay", "on"]}))
    env = Ring()

    class Once(GreedySearch):
        async def grow(self, tree):
            assert (await self.sample(tree, tree.root, 1)).action == "on"

    Once(env, Policy(env.policy_signature, model, distinct=False), Uniform())(task="0")


@pytest.mark.parametrize("counts", [(2, 2, 2), (1, None), (None, 1), (None, None)])
def test_expanding_one_state_at_once_adds_no_child_twice(counts):
    model = ScriptedModel("m/a", answering(lambda inputs, seed: {"actions": [
        one for one in "012345" if one not in inputs["not_allowed"]][:int(inputs["count"])]}))
    env = TreeWorld(depth=2, branching=6, transpositions=0.0)

    class Several(GreedySearch):
        async def grow(self, tree):
            await asyncio.gather(*(self.expand(tree, tree.root, count) for count in counts))
            actions = [node.action for node in tree.children(tree.root)]
            assert len(set(actions)) == len(actions) >= sum(count or 0 for count in counts)

    Several(env, Policy(env.policy_signature, model, count=5), Uniform())(task="0")


# Something of every kind, everywhere

class Leaving(BaseException):
    """No Exception, like SystemExit."""


def anything():
    """What a part of a program may raise."""
    return [SystemExit(3), GeneratorExit(), Leaving("gone"), StopIteration(1), StopAsyncIteration(), MemoryError(),
            RecursionError("deep"), ExceptionGroup("two", [ValueError("a"), KeyError("b")]), AssertionError(),
            OSError(5, "disk"), asyncio.CancelledError(), Unspeakable(), ValueError("red \x1b[31m"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")]


class Raising(TreeWorld):
    """In every third world, what is named raises something of every kind."""

    def __init__(self, where):
        super().__init__(depth=2, branching=2, transpositions=0.0)
        self.where = where

    def reset(self, task):
        self.may_raise("reset", task.text)
        return super().reset(task)

    def successors(self, state):
        self.may_raise("successors", state.data[0])
        return super().successors(state)

    def answer(self, task, state):
        self.may_raise("answer", task.text)
        return super().answer(task, state)

    def may_raise(self, where, number):
        if where == self.where and int(number) % 3 == 0:
            raise anything()[int(number) // 3 % len(anything())]


class Asked(Raising):
    pure = False

    async def areset(self, task):
        await asyncio.sleep(0)
        return self.reset(task)

    async def astep(self, state, action):
        await asyncio.sleep(0)
        self.may_raise("step", state.data[0])
        return self.step(state, action)


class RaisingPolicy(LegalMoves):
    async def aforward(self, situation, count=None, exclude=(), draw=0):
        situation.environment.may_raise("policy", situation.task.text)
        return await super().aforward(situation, count, exclude, draw)


class RaisingValue(Uniform):
    async def aforward(self, situations):
        for situation in situations:
            situation.environment.may_raise("value", situation.task.text)
        return await super().aforward(situations)


@pytest.mark.parametrize("kind", [GreedySearch, BeamSearch, partial(MCTS, simulations=3, parallel=2)])
@pytest.mark.parametrize(("world", "where"), [
    (Raising, "reset"), (Raising, "successors"), (Raising, "answer"), (Raising, "policy"), (Raising, "value"),
    (Asked, "reset"), (Asked, "step"), (Asked, "policy"), (Asked, "value")])
def test_whatever_a_part_raises_is_its_tasks_alone(world, where, kind, tmp_path):
    env, tasks = world(where), [str(number) for number in range(90)]
    program = kind(env, RaisingPolicy(), RaisingValue())
    seen = []
    results = run_sync(run_tasks(program, tasks, journal=tmp_path / "j", progress=seen.append))
    assert [bool(result.error) for result in results] == [number % 3 == 0 for number in range(90)]
    assert [bool(result.answer) for result in results] == [number % 3 != 0 for number in range(90)]
    for number, failed in enumerate(results[::3]):
        raised = anything()[number % len(anything())]
        name = "RuntimeError" if isinstance(raised, StopIteration) else type(raised).__name__
        assert failed.error.startswith(f"{name}: ") and "Traceback" in failed.traceback
        assert "\x1b" not in failed.error + failed.traceback
    assert (seen[-1].done, seen[-1].failed) == (90, 30)


def test_a_thousand_tasks_of_which_every_third_raises_are_a_thousand_results():
    program = GreedySearch(Raising("value"), RaisingPolicy(), RaisingValue())
    results = run_sync(run_tasks(program, [str(number) for number in range(1000)]))
    assert [bool(result.error) for result in results] == [number % 3 == 0 for number in range(1000)]


@pytest.mark.parametrize("raised", [SystemExit(2), ValueError("red \x1b[31m")])
def test_a_progress_that_fails_is_warned_of_and_spoils_no_run(raised):
    called = []

    def progress(status):
        called.append(status)
        raise raised

    with pytest.warns(RuntimeWarning, match=f"progress failed, and is not called again: {type(raised).__name__}"):
        assert all(result.answer for result in answers(Odd(), progress=progress))
    assert len(called) == 1


class Gives(Uniform):
    """In world 1, an estimate that is none."""

    def __init__(self, estimate, times=1):
        super().__init__()
        self.estimate_, self.times = estimate, times

    async def aforward(self, situations):
        if situations[0].task.text == "1":
            return [self.estimate_] * len(situations) * self.times
        return await super().aforward(situations)


@pytest.mark.parametrize("estimate", [
    None, "0.5", 0.5, ValueEstimate(math.nan), ValueEstimate(math.inf), ValueEstimate(10**400), ValueEstimate("0.5"),
    ValueEstimate(0.5, None), ValueEstimate(0.5, b"so"), ValueEstimate([0.5])])
@pytest.mark.parametrize("kind", [GreedySearch, partial(MCTS, simulations=3, parallel=2)])
def test_what_is_no_estimate_is_an_error_and_never_compared_with(estimate, kind, tmp_path):
    program = kind(TreeWorld(depth=2, branching=2, transpositions=0.0), LegalMoves(), Gives(estimate))
    before, failed, after = run_sync(run_tasks(program, ["0", "1", "2"], journal=tmp_path / "j", keep_trees=True))
    assert failed.error.startswith("StlError: Gives gives ") and "a finite number, or None" in failed.error
    assert before.answer and after.answer


def test_whole_numbers_are_scores_and_too_few_estimates_are_none():
    def search(*given):
        return GreedySearch(TreeWorld(depth=1, branching=2, transpositions=0.0), LegalMoves(), Gives(*given))

    tree = search(ValueEstimate(1))(task="1").tree
    assert [type(node.estimate.score) for node in tree.nodes[1:]] == [float, float]
    with pytest.raises(StlError, match="Gives gives 4 estimates for 2 states"):
        search(ValueEstimate(1), 2)(task="1")


@pytest.mark.parametrize("keep_trees", [False, True])
def test_a_result_that_is_no_json_fails_its_task_alone(tmp_path, keep_trees):
    class Bytes(TreeWorld):
        def answer(self, task, state):
            return b"4" if task.text == "1" else super().answer(task, state)

    program = GreedySearch(Bytes(depth=1, branching=2, transpositions=0.0), LegalMoves(), Uniform())
    for _ in range(2):
        before, failed, after = run_sync(run_tasks(program, ["0", "1", "2"], journal=tmp_path / "j",
                                                   keep_trees=keep_trees))
        assert before.answer and after.answer and failed.answer is None
        assert failed.error.startswith("JournalError: this cannot be journaled: Object of type bytes")


class Leaves(ScriptedModel):
    """A model that wants to end the process."""

    async def complete(self, request):
        raise SystemExit(1)


def test_a_model_that_wants_to_leave_does_not():
    env = TreeWorld(depth=1, branching=2, transpositions=0.0)
    model = Leaves("scripted/m", lambda messages, seed: "")
    [result] = run_sync(run_tasks(GreedySearch(env, LegalMoves(), Value(env.value_signature, model, samples=1)), ["0"]))
    assert result.error.startswith("SystemExit: 1 (test_task_boundary.py:")
