"""The engine: nothing runs twice, nothing overshoots, nothing paid is lost, every failure is a counted reason."""

from __future__ import annotations

import asyncio
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import MCTS, BeamSearch, Budget, GreedySearch, LegalMoves, Policy, Uniform, Value, run_sync, run_tasks
from stl_programs.engine import Context, Gate, enter, read_journal
from stl_programs.errors import ModelError, StlError, TransientError
from stl_programs.models.base import Prices
from stl_programs.situations import Situation
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.scripted import ScriptedModel
from tests.conftest import ScriptedValue


def script(messages, seed):
    return game24_script(messages, "m", seed)


def run(program, tasks, **options):
    return run_sync(run_tasks(program, tasks, **options))


def model_program(env, model, search=GreedySearch, **options):
    return search(env, Policy(env.policy_signature, model, count=4, max_tokens=100),
                  Value(env.value_signature, model, samples=2, max_tokens=60), **options)


def test_results_do_not_depend_on_concurrency_or_order(env):
    tasks = [env.task(text) for text in ("4 5 6 10", "1 2 4 6", "3 3 8 8")]
    program = BeamSearch(env, LegalMoves(), Uniform(), width=2)
    one = {r.task: r.answer for r in run(program, tasks, seed=7, concurrency=1)}
    many = {r.task: r.answer for r in run(program, tasks[::-1], seed=7, concurrency=3)}
    other = {r.task: r.answer for r in run(program, tasks, seed=8)}
    assert one == many != other


def test_several_seeds_are_trials_that_overlap(env, tmp_path):
    tasks, model = env.tasks("test")[:3], ScriptedModel("m/a", script, latency=lambda seed: 0.003)
    program = model_program(env, model)
    together = run(program, tasks, seed=[4, 5], journal=tmp_path / "journal.jsonl")
    assert [(r.seed, r.task) for r in together] == [(s, t.id) for s in (4, 5) for t in tasks]
    apart = [r for seed in (4, 5) for r in run(program, tasks, seed=seed)]
    assert [r.answer for r in together] == [r.answer for r in apart]
    assert [r.answer for r in together[:3]] != [r.answer for r in together[3:]]
    paid = len(model.requests)
    assert run(program, tasks, seed=[5], journal=tmp_path / "journal.jsonl") == together[3:]
    assert len(model.requests) == paid


# Work that is not wasted

def test_judgements_are_shared_only_where_asked():
    async def judge():
        calls = []

        async def make():
            calls.append(1)
            mine = len(calls)
            await asyncio.sleep(0)
            return mine

        context = Context()
        first = await asyncio.gather(context.once("a", make), context.once("a", make), context.once("b", make))
        assert first == [1, 1, 2] and await context.once("a", make) == 1

    asyncio.run(judge())
    seeds = {Context(scope=scope).draw_seed("s", i) for scope in ("x", "y") for i in (0, 1)}
    assert len(seeds) == 4


def test_sharing_needs_values_that_do_not_depend_on_the_task(env, monkeypatch):
    monkeypatch.setattr(type(env), "task_free_values", False)
    with pytest.raises(StlError, match="depend on the task"):
        run(GreedySearch(env, LegalMoves(), Uniform()), env.tasks("test")[:1], share_judgements=True)


def test_a_state_met_again_is_not_paid_again(env):
    model = ScriptedModel("m/a", script)
    program = MCTS(env, LegalMoves(), Value(env.value_signature, model, samples=1, max_tokens=60), simulations=40)
    [result] = run(program, env.tasks("test")[:1], keep_trees=True)
    keys = {json.dumps(node["key"]) for node in result.tree["nodes"] if node["value"]}
    assert len(model.requests) == len(keys) < result.states_judged


def test_identical_requests_in_flight_are_one_and_different_draws_are_not(env):
    model = ScriptedModel("m/a", script, latency=lambda seed: 0.01)
    value = Value(env.value_signature, model, samples=4, max_tokens=60)
    state = env.reset(env.task("4 5 6 10"))

    async def ask():
        enter(Context())
        return await asyncio.gather(*(value.estimate(Situation(env, env.task("4 5 6 10"), state)) for _ in range(5)))

    estimates = asyncio.run(ask())
    assert len(model.requests) == 1 and len(set(model.requests[0][1])) == 4
    assert all(estimate == estimates[0] for estimate in estimates)


def test_what_a_provider_leaves_out_of_n_is_asked_for_again(env):
    model = ScriptedModel("m/a", script, takes_n=2)
    value = Value(env.value_signature, model, samples=5, max_tokens=60)
    estimate = asyncio.run(value.estimate(Situation(env, env.task("4 5 6 10"), env.reset(env.task("4 5 6 10")))))
    assert [len(seeds) for _, seeds in model.requests] == [2, 2, 1] and len(estimate.samples) == 5


# Bounds

def test_requests_in_flight_are_bounded_per_endpoint_and_in_all(env):
    a, b = (ScriptedModel(name, script, latency=lambda seed: 0.002) for name in ("m/a", "m/b"))
    program = model_program(env, a)
    program.value.lm = b
    run(program, env.tasks("test")[:8], in_flight=6, per_endpoint={"m/a": 2})
    assert a.most_in_flight == 2 and b.most_in_flight == 6
    both = []
    a.latency = b.latency = lambda seed: both.append(a.in_flight + b.in_flight) or 0.001
    run(program, env.tasks("test")[:8], seed=1, in_flight=6, in_flight_total=3)
    assert max(both) == 3


def test_earlier_tasks_go_first_and_a_cancelled_turn_is_passed_on():
    async def main():
        gate, order = Gate(1), []

        async def hold(name, rank):
            async with gate.slot("e", rank):
                order.append(name)
                await asyncio.sleep(0.001)

        first = asyncio.ensure_future(hold("first", 9))
        await asyncio.sleep(0)
        late, gone, early = (asyncio.ensure_future(hold(n, r)) for n, r in (("late", 5), ("gone", 0), ("early", 1)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, late, early)
        assert order == ["first", "early", "late"] and gate.in_flight == 0

    asyncio.run(main())


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_budget_is_ever_exceeded(env, data):
    """Any limit, any concurrency, any order of replies: what was really used stays within every budget."""
    prices = Prices(1e-3, 1e-3, 2e-3)
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    model = ScriptedModel("m/a", script, latency=lambda seed: rng.random() * 0.002, prices=prices)
    limits = data.draw(st.fixed_dictionaries({}, optional={
        "calls": st.integers(1, 60), "tokens": st.integers(500, 60_000), "dollars": st.floats(0.5, 60),
        "states": st.integers(1, 12)}))
    where = data.draw(st.sampled_from(["run", "task", "module"]))
    program = model_program(env, model, data.draw(st.sampled_from([GreedySearch, BeamSearch])))
    budget, tasks = Budget(**limits), env.tasks("test")[:4]
    if where == "task":
        program.budget = budget
    if where == "module":
        program.value.budget = budget = Budget(**{k: v for k, v in limits.items() if k != "states"})
    results = run(program, tasks, budget=budget if where == "run" else None, concurrency=4)
    assert all(r.answer is not None or r.error for r in results)
    shares = [[r] for r in results] if where == "task" else [results]
    for share in shares:
        rows = [u for r in share for role, u in r.usage.items() if where != "module" or role == "value"]
        used = {"calls": sum(u["calls"] for u in rows), "dollars": sum(u["dollars"] for u in rows),
                "tokens": sum(u["prompt_tokens"] + u["completion_tokens"] for u in rows),
                "states": sum(r.states_expanded for r in share)}
        for name, limit in budget.to_dict().items():
            assert used[name] <= limit + 1e-9, (where, name, used, limit)
    if where == "run" and not limits:
        assert all(r.ended is None for r in results)


def test_a_spent_budget_ends_with_the_best_answer_so_far_and_says_which(env):
    model = ScriptedModel("m/a", script)
    program = model_program(env, model, MCTS, simulations=50, budget=Budget(calls=20))
    prediction = program(task="4 5 6 10")
    assert "the task's budget of 20 calls is spent: 20 used" in prediction.ended and prediction.answer
    assert prediction.tree.about["ended"] == prediction.ended and len(model.requests) == 20


def test_wall_time_is_a_deadline(env):
    model = ScriptedModel("m/slow", script, latency=lambda seed: 0.05)
    program = model_program(env, model, MCTS, simulations=1000, budget=Budget(seconds=0.3))
    started = time.perf_counter()
    prediction = program(task="4 5 6 10")
    assert time.perf_counter() - started < 5
    assert prediction.ended == "the task's budget of seconds is spent" and prediction.answer and model.in_flight == 0


def test_a_run_cut_by_its_own_budget_goes_on_with_a_larger_one(env, tmp_path):
    tasks, path = env.tasks("test")[:4], tmp_path / "journal.jsonl"
    program, model = model_program(env, None), ScriptedModel("m/a", script)
    program.policy.lm = program.value.lm = model
    cut = run(program, tasks, journal=path, budget=Budget(calls=30))
    assert any("the run's budget" in (r.ended or r.error or "") for r in cut) and len(model.requests) == 30
    whole = run(program, tasks, journal=path)
    fresh = ScriptedModel("m/a", script)
    assert [r.answer for r in whole] == [r.answer for r in run(model_program(env, fresh), tasks)]
    assert len(model.requests) == len(fresh.requests)


def test_a_dollar_budget_needs_a_price(env):
    program = model_program(env, ScriptedModel("m/free", script), budget=Budget(dollars=1))
    with pytest.raises(ModelError, match="the price of m/free is unknown; register it"):
        program(task="4 5 6 10")
    with pytest.raises(ValueError, match=r"Budget\(calls=0\): a limit is a number above 0"):
        Budget(calls=0)
    with pytest.raises(ValueError, match="max_tokens=0"):
        Value(env.value_signature, "m/a", max_tokens=0)


# Failures

class Failing(ScriptedValue):
    async def estimate(self, situation):
        if situation.task.id == self.bad:
            raise ModelError("the server went away")
        return await super().estimate(situation)


def test_a_failed_task_is_a_result_with_its_reason(env):
    tasks = env.tasks("test")[:3]
    value = Failing({})
    value.bad = tasks[1].id
    results = run(GreedySearch(env, LegalMoves(), value), tasks)
    assert [r.error for r in results] == [None, "ModelError: the server went away", None]
    assert results[1].answer is None


def test_transient_errors_are_retried_within_the_budget_and_a_400_is_not(env):
    attempts: dict[int, int] = {}

    def shaky(messages, seed):
        attempts[seed] = attempts.get(seed, 0) + 1
        if seed % 3 == 0 and attempts[seed] < 3:
            raise TransientError("503", maybe_paid=seed % 2 == 0)
        return script(messages, seed)

    model = ScriptedModel("m/a", shaky)
    [result] = run(model_program(env, model), env.tasks("test")[:1], backoff=0.001)
    assert result.error is None and sum(u["failed_calls"] for u in result.usage.values()) > 0
    model = ScriptedModel("m/a", lambda messages, seed: (_ for _ in ()).throw(TransientError("busy")))
    [result] = run(model_program(env, model), env.tasks("test")[:1], backoff=0.001, retries=2)
    assert result.error == "ModelError: busy (sent 3 times)" and len(model.requests) == 3
    model = ScriptedModel("m/a", lambda messages, seed: (_ for _ in ()).throw(TransientError("busy")))
    [result] = run(model_program(env, model, budget=Budget(calls=2)), env.tasks("test")[:1], backoff=0.001)
    assert len(model.requests) == 2 and "budget of 2 calls" in result.ended
    model = ScriptedModel("m/a", lambda messages, seed: (_ for _ in ()).throw(ModelError("400: too long")))
    [result] = run(model_program(env, model), env.tasks("test")[:1])
    assert result.error == "ModelError: 400: too long" and len(model.requests) == 1


def test_ctrl_c_leaves_everything_finished_in_the_journal(env, tmp_path):
    model = ScriptedModel("m/a", script, latency=lambda seed: 0.03)

    async def main():
        work = asyncio.ensure_future(run_tasks(model_program(env, model), env.tasks("test")[:6],
                                               journal=tmp_path / "journal.jsonl"))
        await asyncio.sleep(0.08)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    asyncio.run(main())
    recording = read_journal(tmp_path / "journal.jsonl")
    assert recording.replies and len(recording.replies) + len(recording.possibly_paid) == len(model.requests)


def test_progress_tells_where_the_run_stands(env, tmp_path):
    seen = []
    model = ScriptedModel("m/a", script, prices=Prices(1e-6, 1e-6, 1e-6))
    results = run(model_program(env, model), env.tasks("test")[:3], journal=tmp_path / "j", progress=seen.append)
    assert [s.done for s in seen][-1] == 3 and {s.total for s in seen} == {3} and seen[-1].seconds_left == 0
    assert seen[-1].calls == len(model.requests) and seen[-1].tokens == model.prompt_tokens + model.completion_tokens
    assert seen[-1].states == sum(r.states_expanded for r in results)
    assert seen[-1].dollars == pytest.approx(seen[-1].tokens * 1e-6)
    assert json.loads((tmp_path / "j").read_text().splitlines()[0])["format"] == 5


@pytest.mark.parametrize("first", ["returns", "raises", "is cancelled"])
def test_joined_work_is_done_once_and_outlives_no_one(first):
    began, release = [], asyncio.Event()

    async def make():
        began.append(1)
        await release.wait()
        if first == "raises":
            raise ValueError("no")
        return len(began)

    async def main():
        current = Context()
        askers = [asyncio.ensure_future(current.joined("k", make)) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(began) == 1
        if first == "is cancelled":
            askers[0].cancel()
            while len(began) < 2:
                await asyncio.sleep(0)
        release.set()
        found = await asyncio.gather(*askers, return_exceptions=True)
        assert not current.memory
        return found

    found = asyncio.run(main())
    if first == "returns":
        assert found == [1, 1, 1]
    elif first == "raises":
        assert [str(error) for error in found] == ["no"] * 3 and len(began) == 1
    else:
        assert isinstance(found[0], asyncio.CancelledError) and found[1:] == [2, 2]
