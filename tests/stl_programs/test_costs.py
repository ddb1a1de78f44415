"""Costs, right to the token: what the bills say is what the server counted, whoever asked and whatever failed."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.bills import PRICES, compare, reply
from stl_programs import BeamSearch, Budget, GreedySearch, LegalMoves, Policy, Value, run_sync, run_tasks
from stl_programs.costs import Bill, bills_of, lines, markdown, table, total, training_bill
from stl_programs.engine import Context, Run, context, enter, read_journal
from stl_programs.engine.budget import cost_of
from stl_programs.errors import BudgetSpent, JournalError, ModelError, StlError, TransientError
from stl_programs.models.base import Prices
from stl_programs.models.prices import is_open, own_price, training_price
from stl_programs.situations import Situation
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.scripted import ScriptedModel
from stl_programs.testing.simulator import Errors, Latency, Simulator

CHEAP, DEAR = Prices(1e-6, 1e-7, 2e-6), Prices(5e-6, 5e-7, 1e-5)


def script(messages, seed):
    return game24_script(messages, "m", seed)


def puzzles(env, count):
    return [env.task(text) for text in ("4 5 6 10", "1 4 8 8", "2 3 5 12", "4 4 6 8", "1 5 5 5", "3 3 8 8")[:count]]


def run(program, tasks, **options):
    return run_sync(run_tasks(program, tasks, backoff=0.001, **options))


def program_of(env, policy, value, search=GreedySearch, **options):
    return search(env, Policy(env.policy_signature, policy, count=4, max_tokens=100),
                  Value(env.value_signature, value, samples=2, max_tokens=60), **options)


def sent(bills):
    [everything] = total(bills)
    return everything.calls + everything.failed_calls


# Rows and sums

def test_rows_are_by_module_and_model_and_add_up_to_what_the_models_served(env):
    policy, value = ScriptedModel("openai/a", script, prices=CHEAP), ScriptedModel("local/b", script, prices=DEAR)
    results = run(program_of(env, policy, value), puzzles(env, 3))
    bills = bills_of(results, phase="evaluation", iteration=1)
    assert [(b.module, b.model, b.open, b.phase, b.iteration, b.one_time, b.task) for b in bills] == [
        ("policy", "openai/a", False, "evaluation", 1, False, None), ("value", "local/b", True, "evaluation", 1, False,
                                                                       None)]
    for bill, model, prices in zip(bills, (policy, value), (CHEAP, DEAR), strict=True):
        assert bill.calls == len(model.requests) and bill.samples == sum(len(seeds) for _, seeds in model.requests)
        assert (bill.prompt_tokens, bill.completion_tokens) == (model.prompt_tokens, model.completion_tokens)
        assert bill.dollars == pytest.approx(prices.cost(model.prompt_tokens, 0, model.completion_tokens), abs=1e-12)
    rows = bills_of(results, per_task=True)
    assert {row.task for row in rows} == {r.task for r in results} and len(rows) == 6
    assert [sum(getattr(row, name) for row in rows) for name in ("calls", "prompt_tokens")] == [
        sum(getattr(bill, name) for bill in bills) for name in ("calls", "prompt_tokens")]
    assert sum(u["calls"] for r in results for u in r.usage.values()) == sum(bill.calls for bill in bills)


def test_sums_keep_what_is_unknown_unknown():
    rows = [Bill("rollouts", True, 1, "value", "m/a", False, calls=2, dollars=0.5),
            Bill("training", True, 1, "value", "m/a", False, seconds=60.0, dollars=None),
            Bill("evaluation", False, 1, "value", "m/a", False, calls=3, dollars=0.25)]
    once, inference = total(rows, by=("one_time",))
    assert (once.calls, once.dollars, once.seconds) == (2, None, 60) and inference.dollars == 0.25
    assert total(rows)[0].calls == 5 and total([])[0] == Bill()
    assert total(rows, by=("phase", "model"))[0] == Bill("rollouts", model="m/a", calls=2, dollars=0.5)
    with pytest.raises(ValueError, match="choose of one_time, phase"):
        total(rows, by=("dollars",))
    text = markdown(total(rows, by=("one_time", "phase")))
    assert "| one-time | training |" in text and "unknown" in text and "| inference | evaluation |" in text
    assert len(lines(rows)) == 4 and table(rows).row_count == 3
    assert Bill(**json.loads(json.dumps(rows[1].to_dict()))) == rows[1]


def test_training_costs_what_the_user_says_an_hour_does(tmp_path, monkeypatch):
    monkeypatch.delenv("STL_PRICES", raising=False)
    unknown = training_bill(1800, "local/b@value-v1", iteration=1)
    assert unknown.dollars is None and unknown.one_time and unknown.open and unknown.seconds == 1800
    assert training_bill(1800, "m/a", dollars_per_hour=3).dollars == pytest.approx(1.5)
    prices = tmp_path / "prices.json"
    prices.write_text('{"training_per_hour": 2, "openai/mine": {"open": true}, '
                      '"llama-x": {"prompt": 1, "completion": 2, "open": false}}')
    monkeypatch.setenv("STL_PRICES", str(prices))
    assert training_bill(1800, "m/a").dollars == pytest.approx(1.0) and training_price() == 2
    assert is_open("openai/mine") and own_price("openai/mine") is None
    assert not is_open("hosted_vllm/llama-x@value-v2") and own_price("hosted_vllm/llama-x").prompt == 1e-6


@pytest.mark.parametrize("text", ['{"a/b": {"prompt": -1, "completion": 1}}', '{"training_per_hour": -2}', "[]",
                                  '{"a/b": {"prompt": 1}}', '{"a/b": {"open": "yes"}}', '{"training_per_hour": "NaN"}',
                                  '{"a/b": {"prompt": NaN, "completion": 1}}', '{"a/b": {"prompt": 1e999}}', "", "{",
                                  '{"a/b": {"prompt": "1", "completion": 1}}', '{"a/b": 1}', '{"a/b": {}}', "[" * 10**5,
                                  '{"a/b": {"prompt": ' + "9" * 5000 + ', "completion": 1}}', '"\udcff"',
                                  '{"a/b": {"prompt": 1, "completion": 1, "cached": 1}}'])
def test_a_wrong_price_file_is_one_clear_error(tmp_path, monkeypatch, text):
    (tmp_path / "prices.json").write_text(text, errors="surrogateescape")
    monkeypatch.setenv("STL_PRICES", str(tmp_path / "prices.json"))
    with pytest.raises(ModelError, match="not a price file") as error:
        training_price()
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_an_at_sign_of_a_models_own_name_is_no_adapters(tmp_path, monkeypatch):
    (tmp_path / "prices.json").write_text(json.dumps({
        "vertex_ai/claude@2024": {"prompt": 3, "completion": 3}, "openai/qwen": {"prompt": 1, "completion": 1},
        "hosted_vllm/qwen": {"prompt": 2, "completion": 2}}))
    monkeypatch.setenv("STL_PRICES", str(tmp_path / "prices.json"))
    assert own_price("vertex_ai/claude@2024").prompt == 3e-6 and own_price("openai/qwen@q4_k_m") is None
    assert own_price("hosted_vllm/qwen@value-v1").prompt == 2e-6, "a server of one's own names its adapters like this"


def test_open_weights_go_by_the_name(monkeypatch):
    monkeypatch.delenv("STL_PRICES", raising=False)
    for name in ("embedded/game24", "local//models/x", "hosted_vllm/anything", "ollama/qwen3", "openai/gpt-oss-120b",
                 "groq/llama-3.1-8b-instant", "together_ai/meta-llama/Llama-3-8b", "gemini/gemma-3-27b-it",
                 "bedrock/meta.llama3-8b-instruct-v1:0", "embedded/game24@value-v1-abc"):
        assert is_open(name), name
    for name in ("openai/gpt-4o", "anthropic/claude-sonnet-4", "gemini/gemini-2.5-pro", "mistral/mistral-large", "m/a"):
        assert not is_open(name), name


# Who pays

def test_a_request_that_two_make_at_once_is_paid_by_the_first_and_cached_for_the_second(env):
    model = ScriptedModel("m/a", script, latency=lambda seed: 0.005, prices=CHEAP)
    value = Value(env.value_signature, model, samples=1, max_tokens=60)
    task, state = env.task("4 5 6 10"), env.reset(env.task("4 5 6 10"))

    async def both():
        shared = Run()
        contexts = [Context(shared, task=name) for name in ("first", "second")]

        async def ask(current):
            enter(current)
            await value.estimate(Situation(env, task, state))
            await current.stop()

        await asyncio.gather(*(ask(current) for current in contexts))
        return contexts

    first, second = asyncio.run(both())
    assert len(model.requests) == 1 and first.usage["value"].calls == 1 and first.usage["value"].cached_calls == 0
    assert second.usage["value"].calls == 0 and second.usage["value"].cached_calls == 1
    assert first.ledger.spent["calls"] == 1 == first.run.ledger.spent["calls"] and second.ledger.spent["calls"] == 0


def test_a_task_that_fails_still_pays_for_what_others_wait_for(env):
    """Nothing that was begun for a failed task escapes its bill, and what nobody waits for is not sent."""
    model = ScriptedModel("m/a", script, latency=lambda seed: 0.01, prices=CHEAP)
    tasks = puzzles(env, 6)

    class Hasty(Value):
        async def aforward(self, situations):
            if situations[0].task.id == tasks[0].id and situations[0].depth:
                work = asyncio.ensure_future(super().aforward(situations))
                await asyncio.sleep(0.002)
                work.cancel()
                raise ModelError("gone")
            return await super().aforward(situations)

    value = Hasty(env.value_signature, model, samples=1, max_tokens=60)
    results = run(BeamSearch(env, LegalMoves(), value, width=2), tasks, share_judgements=True)
    assert results[0].error == "ModelError: gone" and all(r.answer for r in results[1:])
    assert sent(bills_of(results)) == len(model.requests)


def test_anothers_budget_does_not_end_a_search_that_shares_its_judgements(env):
    task = env.task("4 5 6 10")

    async def main():
        shared, memory = Run(), {}
        poor, rich = (Context(shared, task=name, memory=memory) for name in ("poor", "rich"))

        async def judge():
            await asyncio.sleep(0.001)
            if context() is poor:
                raise BudgetSpent("the task's budget of 1 calls is spent")
            return context().task

        async def ask(current):
            enter(current)
            return await current.once("state", judge)

        return await asyncio.gather(ask(poor), ask(rich), ask(rich), return_exceptions=True)

    error, *answers = asyncio.run(main())
    assert isinstance(error, BudgetSpent) and answers == ["rich", "rich"] and task.id


def test_a_task_given_twice_is_searched_and_billed_once(env):
    model, seen = ScriptedModel("m/a", script, prices=CHEAP), []
    task = puzzles(env, 1)[0]
    results = run(program_of(env, model, model), [task, task], progress=seen.append)
    assert results[0] is results[1] and sent(bills_of(results)) == len(model.requests)
    assert seen[-1].done == seen[-1].total == 1 and seen[-1].calls == len(model.requests)


def test_a_search_that_is_over_sends_nothing_more(env):
    model = ScriptedModel("m/a", script)
    value = Value(env.value_signature, model, samples=1, max_tokens=60)

    async def late():
        enter(current := Context(task="t"))
        await current.stop()
        await value.estimate(Situation(env, env.task("4 5 6 10"), env.reset(env.task("4 5 6 10"))))

    with pytest.raises(StlError, match="the search of 't' has ended, and its bill is final"):
        asyncio.run(late())
    assert not model.requests


# What fails

@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_request_is_on_a_bill_and_the_ledger_says_the_same(env, data):
    """Failures of every kind, short replies, shared judgements, deadlines: bills, ledger and model agree."""
    seed = data.draw(st.integers(0, 10**6))
    kinds = [None] * data.draw(st.integers(3, 12)) + [
        TransientError("busy"), TransientError("cut", maybe_paid=True), ModelError("400")]

    def moody(messages, draw):
        kind = kinds[hash((draw, seed, len(model.requests))) % len(kinds)]
        if kind is not None:
            raise type(kind)(str(kind), maybe_paid=kind.maybe_paid) if isinstance(kind, TransientError) else kind
        return script(messages, draw)

    model = ScriptedModel("m/a", moody, latency=lambda draw: 0.001 * (draw % 3), prices=CHEAP,
                          takes_n=data.draw(st.integers(1, 3)))
    runs = []

    class Watched(Value):
        async def judge(self, *args):
            runs.append(context().run)
            return await super().judge(*args)

    program = program_of(env, model, model, BeamSearch, width=2,
                         budget=Budget(seconds=data.draw(st.sampled_from([0.02, 5]))))
    program.value = Watched(env.value_signature, model, samples=3, max_tokens=60)
    results = run(program, puzzles(env, 4), retries=2, share_judgements=data.draw(st.booleans()))
    [everything] = total(bills_of(results))
    assert sent([everything]) == len(model.requests)
    assert everything.possibly_paid_calls <= everything.failed_calls
    if runs:
        spent = runs[0].ledger.spent
        assert spent["calls"] == len(model.requests)
        assert spent["tokens"] == (everything.prompt_tokens + everything.completion_tokens
                                   + everything.possibly_paid_tokens)
        assert spent["dollars"] == pytest.approx(everything.dollars + everything.possibly_paid_dollars, abs=1e-12)


def test_a_lost_reply_is_possibly_paid_up_to_its_bound_and_a_refused_one_is_not(env):
    def moody(messages, draw):
        if len(model.requests) in (1, 2):
            raise TransientError("busy", maybe_paid=len(model.requests) == 2)
        return script(messages, draw)

    model = ScriptedModel("m/a", moody, prices=CHEAP)
    [result] = run(program_of(env, model, model), puzzles(env, 1))
    [bill] = total(bills_of([result]))
    assert (bill.failed_calls, bill.possibly_paid_calls) == (2, 1) and bill.calls == len(model.requests) - 2
    assert bill.possibly_paid_tokens > 100 and 0 < bill.possibly_paid_dollars < bill.possibly_paid_tokens * 2e-6
    assert (bill.prompt_tokens, bill.completion_tokens) == (model.prompt_tokens, model.completion_tokens)
    assert "1 calls, at most $" in markdown([bill])


def test_the_bills_are_the_servers_own_count():
    """100 requests to a simulated server, a fifth of them refused or cut, half of them asked for twice."""
    errors = Errors(rate=0.2, kinds=("429", "500", "cut"))
    with Simulator(reply, list(PRICES), latency=Latency(0.002), errors=errors) as server:
        rows = compare(server, calls=100, timeout=60.0)
        assert len(server.log()) > 100 and {row["failure"] for row in server.log()} == {None, "429", "500", "cut"}
    assert all(row.holds for row in rows), [row for row in rows if not row.holds]


# Across a kill

@pytest.mark.parametrize("after", [0.01, 0.03, 0.06])
def test_after_a_cut_the_bills_are_those_of_both_halves(env, tmp_path, after):
    def moody(messages, draw):
        if draw % 7 == 0 and draw not in failed:
            failed.add(draw)
            raise TransientError("busy", maybe_paid=draw % 2 == 0)
        return script(messages, draw)

    failed, tasks, path = set(), puzzles(env, 5), tmp_path / "journal.jsonl"
    model = ScriptedModel("m/a", moody, latency=lambda draw: 0.004, prices=CHEAP)
    program = program_of(env, model, model)

    async def cut():
        work = asyncio.ensure_future(run_tasks(program, tasks, journal=path, backoff=0.001))
        await asyncio.sleep(after)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(cut())
    lost = len(read_journal(path).possibly_paid)
    results = run(program, tasks, journal=path)
    [everything] = total(bills_of(results))
    assert sent([everything]) == len(model.requests) and everything.possibly_paid_calls >= lost
    assert run(program, tasks, journal=path) == results
    journaled = [usage for bills in read_journal(path).spent().values() for usage in bills.values()]
    assert sum(cost_of(usage).calls for usage in journaled) == len(model.requests)


def test_what_failed_before_a_kill_counts_against_the_tasks_and_the_modules_budgets(env, tmp_path):
    def busy(messages, seed):
        raise TransientError("busy", maybe_paid=len(model.requests) == 1)

    model = ScriptedModel("m/a", busy, prices=CHEAP)
    run(program_of(env, model, model), puzzles(env, 1), journal=tmp_path / "j", retries=2)
    lines_ = (tmp_path / "j").read_text().splitlines(keepends=True)
    for where in ("task", "module"):
        path = tmp_path / where
        path.write_text("".join(line for line in lines_ if '"result"' not in line))
        again = ScriptedModel("m/a", script, prices=CHEAP)
        program = program_of(env, again, again, budget=Budget(calls=5) if where == "task" else None)
        if where == "module":
            program.policy.budget = Budget(calls=4)
        [result] = run(program, puzzles(env, 1), journal=path)
        why = f"{result.ended or ''}{result.error or ''}"
        if where == "task":
            assert len(again.requests) == 2 and "the task's budget of 5 calls is spent: 5 used" in why
        else:
            assert "the policy module's budget of 4 calls is spent: 4 used" in why
        [bill] = total(bills_of([result]))
        assert (bill.failed_calls, bill.possibly_paid_calls) == (3, 1) and bill.calls == len(again.requests)


def test_a_reply_that_a_resumed_search_does_not_ask_for_again_stays_on_the_bill(env, tmp_path):
    tasks, path = puzzles(env, 1), tmp_path / "journal.jsonl"
    model = ScriptedModel("m/a", script, prices=CHEAP)
    run(program_of(env, model, model, BeamSearch, width=3), tasks, journal=path,
        fingerprint={"program": "either"})
    paid = len(model.requests)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"result"' not in line))
    [other] = run(program_of(env, model, model), tasks, journal=path, fingerprint={"program": "either"})
    assert sent(bills_of([other])) == len(model.requests) and paid > 10


def test_replies_of_another_journal_cost_nothing_and_are_cached(env, tmp_path):
    tasks, path = puzzles(env, 2), tmp_path / "journal.jsonl"
    model = ScriptedModel("m/a", script, prices=CHEAP)
    run(program_of(env, model, model), tasks, journal=path)
    asked = len(model.requests)
    [bill] = total(bills_of(run(program_of(env, model, model), tasks, recorded=[path])))
    assert (bill.calls, bill.cached_calls, bill.dollars, len(model.requests)) == (0, asked, 0.0, asked)
    assert "cached calls" in markdown([bill])


def test_journals_of_other_formats(env, tmp_path):
    tasks, path = puzzles(env, 1), tmp_path / "journal.jsonl"
    model = ScriptedModel("m/a", script)
    [first] = run(program_of(env, model, model), tasks, journal=path)
    rest = re.sub(r',"at":\[[^]]*\],"sum":"\w{16}"}\n', "}\n", path.read_text()).splitlines(keepends=True)[1:]
    old = tmp_path / "old.jsonl"
    for version in (2, 3, 4):
        old.write_text("".join([f'{{"format":{version},"fingerprint":{{}}}}\n', *rest]))
        with pytest.raises(JournalError, match=f"format {version}; this version continues format 5: choose another"):
            run(program_of(env, model, model), tasks, journal=old)
        [again] = run(program_of(env, model, model), tasks, recorded=[old], offline=True)
        assert again.answer == first.answer
    for line, why in (('{"format": 9}\n', "a journal of format 9"), ("{}\n", "names no format: it is no journal")):
        old.write_text(line)
        with pytest.raises(JournalError, match=why):
            run(program_of(env, model, model), tasks, recorded=[old])
        with pytest.raises(JournalError, match=why):
            run(program_of(env, model, model), tasks, journal=old)


# Before any money is spent

def test_a_budget_of_dollars_needs_every_price_before_the_run(env, tmp_path):
    known, unknown = ScriptedModel("m/a", script, prices=CHEAP), ScriptedModel("m/b", script)
    program = program_of(env, known, unknown)
    with pytest.raises(ModelError, match=r"Budget\(dollars=1\): the price of m/b is unknown; register it") as error:
        run(program, puzzles(env, 3), budget=Budget(dollars=1), journal=tmp_path / "j")
    assert "\n" not in str(error.value) and not known.requests and not (tmp_path / "j").exists()
    program.budget = Budget(dollars=2)
    with pytest.raises(ModelError, match=r"Budget\(dollars=2\): the price of m/b"):
        run(program, puzzles(env, 3))
    program.budget = None
    assert run(program, puzzles(env, 1), journal=tmp_path / "j")[0].error is None
    now_known = program_of(env, known, ScriptedModel("m/b", script, prices=DEAR))
    with pytest.raises(ModelError, match="the journal holds calls to m/b from when their price was unknown"):
        run(now_known, puzzles(env, 2), journal=tmp_path / "j", budget=Budget(dollars=1))


def test_a_module_budget_in_dollars_needs_a_price_before_the_run(env):
    model = ScriptedModel("m/a", lambda messages, seed: "")
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, model, budget=Budget(dollars=0.5)))
    with pytest.raises(ModelError, match=r"Budget\(dollars=0.5\): the price of m/a is unknown"):
        program(task="4 5 6 10")
