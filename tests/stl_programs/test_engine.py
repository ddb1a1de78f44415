from __future__ import annotations

import asyncio
import json

import pytest

from stl_programs import BeamSearch, GreedySearch, LegalMoves, Uniform, run_tasks
from stl_programs.engine import Context, Journal, TaskResult, run_sync
from stl_programs.errors import JournalError, ModelError, StlError
from tests.conftest import ScriptedValue


def run(program, tasks, **options):
    return run_sync(run_tasks(program, tasks, **options))


def test_results_do_not_depend_on_concurrency_or_order(env):
    tasks = env.tasks("test")[:6]
    program = BeamSearch(env, LegalMoves(), Uniform(), width=3)
    one = {r.task: r.answer for r in run(program, tasks, seed=7, concurrency=1)}
    many = {r.task: r.answer for r in run(program, tasks[::-1], seed=7, concurrency=6)}
    other = {r.task: r.answer for r in run(program, tasks, seed=8)}
    assert one == many != other


def test_a_journal_is_continued_and_nothing_runs_twice(env, tmp_path):
    tasks, path = env.tasks("test")[:4], tmp_path / "run" / "journal.jsonl"
    program = GreedySearch(env, LegalMoves(), ScriptedValue({}))
    first = run(program, tasks[:2], journal=path)
    program.value.asked.clear()
    both = run(program, tasks, journal=path)
    assert [r.task for r in both] == [t.id for t in tasks] and both[:2] == first
    program.value.asked.clear()
    assert run(program, tasks, journal=path) == both and program.value.asked == []


def test_a_line_cut_short_by_a_kill_is_dropped(env, tmp_path):
    tasks, path = env.tasks("test")[:3], tmp_path / "journal.jsonl"
    program = GreedySearch(env, LegalMoves(), ScriptedValue({}))
    whole = run(program, tasks, journal=path)
    path.write_bytes(path.read_bytes()[:-25])
    again = run(program, tasks, journal=path)
    assert [r.answer for r in again] == [r.answer for r in whole]
    assert len(path.read_text().splitlines()) == 4


def test_a_journal_of_another_run_is_refused(env, tmp_path):
    program, path = GreedySearch(env, LegalMoves(), Uniform()), tmp_path / "journal.jsonl"
    run(program, env.tasks("test")[:1], journal=path, fingerprint={"width": 5})
    with pytest.raises(JournalError, match="belongs to another run"):
        run(program, env.tasks("test")[:1], journal=path, fingerprint={"width": 6})
    path.write_text("no json\n")
    with pytest.raises(JournalError, match="line 1 is not JSON"):
        run(program, env.tasks("test")[:1], journal=path)


def test_a_full_disk_is_one_clear_error(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", {})
    journal._file = open("/dev/full", "w")  # noqa: SIM115 - closing it would fail
    with pytest.raises(JournalError, match="No space left on device; free some space and run again"):
        journal.append(TaskResult("4 5 6 10"))
    journal.close()


class Failing(ScriptedValue):
    async def aforward(self, environment, task, state):
        if task.id == self.bad:
            raise ModelError("the server went away")
        return await super().aforward(environment, task, state)


def test_a_failed_task_is_a_result_with_its_reason(env):
    tasks = env.tasks("test")[:3]
    value = Failing({})
    value.bad = tasks[1].id
    results = run(GreedySearch(env, LegalMoves(), value), tasks)
    assert [r.error for r in results] == [None, "ModelError: the server went away", None]
    assert results[1].answer is None


def test_judgements_are_shared_only_where_asked(env):
    async def judge():
        calls = []

        async def make():
            calls.append(1)
            mine = len(calls)
            await asyncio.sleep(0)
            return mine

        context = Context(0, "")
        assert await asyncio.gather(context.once("a", make), context.once("a", make), context.once("b", make)) == [
            1, 1, 2]

    asyncio.run(judge())
    assert Context(0, "x").draw_seed("s", 0) != Context(0, "y").draw_seed("s", 0) != Context(1, "y").draw_seed("s", 0)


def test_sharing_needs_values_that_do_not_depend_on_the_task(env, monkeypatch):
    monkeypatch.setattr(type(env), "task_free_values", False)
    with pytest.raises(StlError, match="depend on the task"):
        run(GreedySearch(env, LegalMoves(), Uniform()), env.tasks("test")[:1], share_judgements=True)


def test_progress_counts_up(env, tmp_path):
    seen = []
    tasks = env.tasks("test")[:3]
    program = GreedySearch(env, LegalMoves(), Uniform())
    run(program, tasks, journal=tmp_path / "j", progress=lambda done, total, result: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert json.loads((tmp_path / "j").read_text().splitlines()[0])["format"] == 1
