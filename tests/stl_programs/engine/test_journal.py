"""The journal: a run goes on where it was cut, replays without a model, and is refused to another run."""

from __future__ import annotations

import asyncio

import pytest

from stl_programs import BeamSearch, Budget, GreedySearch, LegalMoves, Uniform, Value
from stl_programs.engine import Context, Journal, Run, TaskResult, enter, read_journal
from stl_programs.engine.run import identity
from stl_programs.errors import JournalError, ModelError, TransientError
from stl_programs.situations import Situation
from stl_programs.testing.scripted import ScriptedModel
from tests.conftest import ScriptedValue
from tests.stl_programs.engine.test_engine import model_program, run, script


def test_a_journal_is_continued_and_nothing_runs_twice(env, tmp_path):
    tasks, path = env.tasks("test")[:4], tmp_path / "run" / "journal.jsonl"
    program = GreedySearch(env, LegalMoves(), ScriptedValue({}))
    first = run(program, tasks[:2], journal=path)
    program.value.asked.clear()
    both = run(program, tasks, journal=path)
    assert [r.task for r in both] == [t.id for t in tasks] and both[:2] == first
    program.value.asked.clear()
    assert run(program, tasks, journal=path) == both and program.value.asked == []


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_a_run_cut_anywhere_goes_on_without_paying_twice(env, tmp_path, keep):
    tasks, path = env.tasks("test")[:3], tmp_path / "journal.jsonl"
    whole_model, model = ScriptedModel("m/a", script), ScriptedModel("m/a", script)
    whole = run(model_program(env, whole_model), tasks, journal=path)
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * keep)])
    journaled = len(read_journal(path).replies)
    again = run(model_program(env, model), tasks, journal=path)
    assert [(r.answer, r.trajectory, r.states_judged) for r in again] == [
        (r.answer, r.trajectory, r.states_judged) for r in whole]
    assert len(model.requests) == len(whole_model.requests) - journaled
    for ours, theirs in zip(again, whole, strict=True):
        for role, usage in theirs.usage.items():
            assert answered(ours.usage[role]) == answered(usage)


def answered(usage):
    """What replies say; not what was in flight at the kill, and may have been paid for."""
    return {name: amount for name, amount in usage.items() if name != "seconds" and not name.startswith(
        ("failed", "possibly"))}


def test_calls_in_flight_at_a_kill_are_listed_as_possibly_paid(env, tmp_path):
    path = tmp_path / "journal.jsonl"
    run(model_program(env, ScriptedModel("m/a", script)), env.tasks("test")[:1], journal=path)
    lines = path.read_text().splitlines(keepends=True)
    last_sent = max(i for i, line in enumerate(lines) if '"sent"' in line)
    path.write_text("".join(lines[:last_sent + 1]))
    [lost] = read_journal(path).possibly_paid
    assert lost.caller[1:3] == (env.tasks("test")[0].id, "value") and lost.bound.tokens > 60


def test_a_journal_replays_without_any_model(env, tmp_path):
    tasks, path = env.tasks("test")[:2], tmp_path / "journal.jsonl"
    model, silent = ScriptedModel("m/a", script), ScriptedModel("m/a", script)
    first = run(model_program(env, model), tasks, journal=path)
    again = run(model_program(env, silent), tasks, recorded=[path], offline=True)
    assert [r.answer for r in again] == [r.answer for r in first] and not silent.requests
    assert sum(u["calls"] for r in again for u in r.usage.values()) == 0
    assert sum(u["cached_calls"] for r in again for u in r.usage.values()) == len(model.requests)
    other = run(model_program(env, silent), env.tasks("test")[2:3], recorded=[path], offline=True)
    assert "is in no journal" in other[0].error


def test_another_search_over_a_recorded_tree_pays_for_unseen_nodes_only(env, tmp_path):
    tasks, path = env.tasks("test")[:2], tmp_path / "journal.jsonl"
    run(model_program(env, ScriptedModel("m/a", script), BeamSearch, width=3), tasks, journal=path)
    fresh, seen, other = (ScriptedModel(name, script) for name in ("m/a", "m/a", "m/b"))
    greedy = run(model_program(env, fresh), tasks)
    assert [r.answer for r in run(model_program(env, seen), tasks, recorded=[path])] == [r.answer for r in greedy]
    recorded = read_journal(path).replies
    assert len(recorded) and len(seen.requests) <= len(fresh.requests) - 2 * 5  # at least the roots' ones are known
    program = model_program(env, seen)
    program.value.lm, before = other, len(seen.requests)
    results = run(program, tasks, recorded=[path])
    assert other.requests and len(seen.requests) - before < 6 and not any(r.error for r in results)


def test_a_journal_of_another_run_is_refused(env, tmp_path):
    program, path = GreedySearch(env, LegalMoves(), Uniform()), tmp_path / "journal.jsonl"
    run(program, env.tasks("test")[:1], journal=path, fingerprint={"width": 5})
    with pytest.raises(JournalError, match="another run: its width is 5, here it is 6; choose another file"):
        run(program, env.tasks("test")[:1], journal=path, fingerprint={"width": 6})
    with pytest.raises(JournalError, match=r'its program\.kind is "GreedySearch", here it is "BeamSearch"; its '
                                           r"program\.settings\.width is null, here it is 3"):
        run(BeamSearch(env, LegalMoves(), Uniform(), width=3), env.tasks("test")[:1], journal=path,
            fingerprint={"width": 5})
    path.write_text("no json\n")
    with pytest.raises(JournalError, match="line 1 is not JSON"):
        run(program, env.tasks("test")[:1], journal=path)


def test_a_reply_is_billed_once_and_a_failed_task_does_not_take_shared_judgements_with_it(env, tmp_path):
    model = ScriptedModel("m/a", script, latency=lambda seed: 0.01)
    value = Value(env.value_signature, model, samples=1, max_tokens=60)
    task, state = env.task("4 5 6 10"), env.reset(env.task("4 5 6 10"))

    async def twice():
        enter(current := Context(Run(journal=Journal(tmp_path / "j", {})), task="t", scope="t"))
        await value.estimate(Situation(env, task, state))
        current.memory.clear()
        await value.estimate(Situation(env, task, state))
        return current

    current = asyncio.run(twice())
    assert current.usage["value"].calls == 1 == current.run.ledger.spent["calls"] == len(model.requests)
    assert current.usage["value"].cached_calls == 1

    class Hasty(Value):
        async def aforward(self, situations):
            if situations[0].task.id == tasks[0].id and situations[0].depth:
                self.left = asyncio.ensure_future(super().aforward(situations))
                await asyncio.sleep(0.002)
                raise ModelError("gone")
            return await super().aforward(situations)

    tasks = env.tasks("test")[:4]
    hasty = Hasty(env.value_signature, model, samples=1, max_tokens=60)
    results = run(BeamSearch(env, LegalMoves(), hasty, width=2), tasks, share_judgements=True)
    assert results[0].error == "ModelError: gone" and all(r.answer for r in results[1:])


def test_what_failed_before_a_kill_counts_against_the_budget_after_it(env, tmp_path):
    path = tmp_path / "j"
    model = ScriptedModel("m/a", lambda messages, seed: (_ for _ in ()).throw(TransientError("busy")))
    run(model_program(env, model), env.tasks("test")[:1], journal=path, retries=2, backoff=0.001)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"result"' not in line))
    again = ScriptedModel("m/a", script)
    [result] = run(model_program(env, again), env.tasks("test")[:1], journal=path, budget=Budget(calls=5))
    assert len(again.requests) == 2 and "budget of 5 calls" in result.ended


def test_a_journal_has_one_writer(env, tmp_path):
    path = tmp_path / "journal.jsonl"
    program = GreedySearch(env, LegalMoves(), Uniform())
    journal = Journal(path, identity(program))
    with pytest.raises(JournalError, match="is being written by another process"):
        run(program, env.tasks("test")[:1], journal=path)
    journal.close()
    assert run(program, env.tasks("test")[:1], journal=path)


def test_a_full_disk_is_one_clear_error(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", {})
    journal.close()
    journal._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the journal closes it
    with pytest.raises(JournalError, match="No space left on device; free some space and run again"):
        journal.result(TaskResult("4 5 6 10"))
    journal.close()
