"""Who runs the trials, who is told of it, and what is done beside the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref

import pytest

from stl_programs import BeamSearch, GreedySearch, LegalMoves, Policy, Status, Uniform, Value, run_sync, run_tasks
from stl_programs.engine import Executor, Job, Journal, LocalExecutor, Run, TaskResult, context, read_journal, status
from stl_programs.engine.aside import Aside
from stl_programs.errors import JournalError
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.scripted import ScriptedModel


@pytest.fixture
def kinds(monkeypatch):
    monkeypatch.setattr(Executor, "kinds", dict(Executor.kinds))


def uniform(env):
    return BeamSearch(env, LegalMoves(), Uniform(), width=2)


def asking(env, model):
    return GreedySearch(env, Policy(env.policy_signature, model, count=4, max_tokens=100),
                        Value(env.value_signature, model, samples=2, max_tokens=60))


def scripted():
    return ScriptedModel("m/a", lambda messages, seed: game24_script(messages, "m", seed))


# Executors

def test_an_executor_is_found_by_its_kind_once_it_is_defined(env, kinds):
    ran = []

    class Backwards(LocalExecutor):
        kind = "backwards"

        async def run(self, job):
            job.todo.reverse()
            ran.extend(trial.task.id for trial in job.todo)
            await super().run(job)

    tasks = env.tasks("test")[:4]
    backwards = run_sync(run_tasks(uniform(env), tasks, executor="backwards"))
    assert ran == [task.id for task in tasks[::-1]] and [r.task for r in backwards] == [t.id for t in tasks]
    forwards = run_sync(run_tasks(uniform(env), tasks))
    assert [r.answer for r in backwards] == [r.answer for r in forwards]
    assert run_sync(run_tasks(uniform(env), tasks, executor=Backwards()))[0].answer == forwards[0].answer


def test_an_executor_may_be_written_from_nothing(env, kinds, tmp_path):
    class Elsewhere(Executor):
        kind = "elsewhere"

        async def run(self, job):
            for trial in job.todo:
                await job.finished(TaskResult(trial.task.id, trial.seed, answer="somewhere else"))

    tasks, seen = env.tasks("test")[:3], []
    for _ in range(2):  # the second time from the journal
        results = run_sync(run_tasks(uniform(env), tasks, seed=[1, 2], journal=tmp_path / "j", executor="elsewhere",
                                     progress=seen.append))
        assert [(r.seed, r.task) for r in results] == [(seed, t.id) for seed in (1, 2) for t in tasks]
        assert {r.answer for r in results} == {"somewhere else"} and seen[-1].done == seen[-1].total == 6
    assert len(read_journal(tmp_path / "j").results) == 6


def test_a_file_beside_the_others_is_an_executor_of_its_name(env, kinds, tmp_path, monkeypatch):
    import stl_programs.engine

    (tmp_path / "one_more.py").write_text("from stl_programs.engine import LocalExecutor\n\n\n"
                                          "class OneMore(LocalExecutor):\n    kind = 'one_more'\n")
    monkeypatch.setattr(stl_programs.engine, "__path__", [*stl_programs.engine.__path__, str(tmp_path)])
    assert run_sync(run_tasks(uniform(env), env.tasks("test")[:1], executor="one_more"))[0].answer


def test_an_unknown_kind_is_one_clear_error_before_anything_is_done(env, tmp_path, kinds):
    for wrong in ("ether", "journal", "../local", "a.b"):
        with pytest.raises(ValueError, match=r"executor='.*': known are .*'local'.*; import the module") as error:
            run_sync(run_tasks(uniform(env), env.tasks("test")[:1], executor=wrong, journal=tmp_path / "j"))
        assert "\n" not in str(error.value) and not (tmp_path / "j").exists()
    with pytest.raises(TypeError, match="Nameless is an Executor without a `kind`"):
        type("Nameless", (Executor,), {})


# Progress

def test_reports_are_apart_and_the_last_one_is_always_told():
    now, told = [0.0], []

    async def main():
        reports = status.Reports(told.append, lambda: now[0], clock=lambda: now[0])
        async with reports.ticking():
            for _ in range(16_000):
                now[0] += status.APART / 100
                reports.due()
        return reports

    asyncio.run(main())
    assert 155 <= len(told) <= 165 and told[-1] == now[0]


def test_progress_of_many_tasks_is_a_bounded_number_of_lines_and_the_last_is_complete(env, monkeypatch, capsys):
    monkeypatch.setattr(status, "APART", 1e9)
    monkeypatch.setattr(status, "TICK", 1e9)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tasks, model, seen = env.tasks("test")[:40], scripted(), []

    def progress(found: Status):
        seen.append(found)
        status.show_progress(found)

    results = run_sync(run_tasks(asking(env, model), tasks, progress=progress))
    assert [s.done for s in seen] == [1, 40] and seen[-1].failed == sum(r.error is not None for r in results)
    assert seen[-1].calls == len(model.requests) and seen[-1].states == sum(r.states_expanded for r in results)
    shown = capsys.readouterr().err
    assert shown.count("\r") == 2 and shown.endswith("\n") and "40/40 tasks" in shown


def test_a_status_counts_tasks_under_way_and_those_of_an_earlier_run(env, tmp_path):
    tasks, model, seen = env.tasks("test")[:4], scripted(), []

    class Watched(Value):
        async def estimate(self, situation):
            seen.append((context().run.tally.calls, len(model.requests)))
            return await super().estimate(situation)

    program = asking(env, model)
    program.value = Watched(env.value_signature, model, samples=2, max_tokens=60)
    run_sync(run_tasks(program, tasks[:2], journal=tmp_path / "j"))
    before = len(model.requests)
    seen.clear()
    run_sync(run_tasks(program, tasks, journal=tmp_path / "j", concurrency=1))
    assert before > 0 and seen and all(counted == sent for counted, sent in seen)


# Beside the loop

def test_work_aside_is_done_in_order_in_another_thread_and_what_it_raises_is_raised():
    async def main():
        aside, done = Aside(), []
        await asyncio.gather(*(aside(lambda i=i: done.append((i, threading.current_thread()))) for i in range(20)))
        assert [i for i, _ in done] == list(range(20)) and threading.main_thread() not in {t for _, t in done}
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 / 0)
        aside.close()
        return {thread for _, thread in done}

    [thread] = asyncio.run(main())
    assert not thread.is_alive()


def test_a_result_with_a_tree_is_written_aside_before_it_is_used_and_reads_the_same(env, tmp_path, monkeypatch):
    threads, used, path = [], [], tmp_path / "j"
    whole, finished = Journal.result, Job.finished

    def watched(self, result, budget):
        threads.append(threading.current_thread())
        assert (result.seed, result.task) not in used
        whole(self, result, budget)

    async def noted(self, result, final=True):
        await finished(self, result, final)
        used.append((result.seed, result.task))
        assert any(f'"task":{json.dumps(result.task)}' in line for line in path.read_text().splitlines()
                   if line.startswith('{"result"'))

    monkeypatch.setattr(Journal, "result", watched)
    monkeypatch.setattr(Job, "finished", noted)
    tasks = env.tasks("test")[:5]
    results = run_sync(run_tasks(asking(env, scripted()), tasks, journal=tmp_path / "j", keep_trees=True))
    assert len(used) == 5 and threading.main_thread() not in threads and len(set(threads)) == 1
    lines = [line for line in (tmp_path / "j").read_text().splitlines() if line.startswith('{"result"')]
    assert lines == [json.dumps(json.loads(line), separators=(",", ":")) for line in lines]
    assert run_sync(run_tasks(asking(env, scripted()), tasks, journal=tmp_path / "j", keep_trees=True)) == results
    threads.clear()
    used.clear()
    path = tmp_path / "small"
    run_sync(run_tasks(asking(env, scripted()), tasks, journal=path))
    assert set(threads) == {threading.main_thread()}


@pytest.mark.parametrize("keep_trees", [True, False])
def test_a_disk_that_fails_ends_the_run_at_once(env, tmp_path, monkeypatch, keep_trees):
    begin = Journal._begin

    def full(self, header):
        begin(self, header)
        self._file.close()
        self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the journal closes it

    monkeypatch.setattr(Journal, "_begin", full)
    with pytest.raises(JournalError, match="No space left on device; free some space"):
        run_sync(run_tasks(uniform(env), env.tasks("test")[:20], journal=tmp_path / "j", keep_trees=keep_trees))


def test_nothing_is_written_behind_a_line_that_did_not_fit(tmp_path):
    class Short:
        def __init__(self, file):
            self.file, self.room = file, 40

        def write(self, line):
            return self.file.write(line[:self.room])

        def __getattr__(self, name):
            return getattr(self.file, name)

    journal = Journal(tmp_path / "j", {})
    whole = (tmp_path / "j").read_bytes()
    journal._file = Short(journal._file)
    with pytest.raises(JournalError, match="only 40 of"):
        journal.result(TaskResult("a task", answer="x" * 100, tree={"nodes": []}))
    journal._file.room = 10**6
    with pytest.raises(JournalError, match="only 40 of"):
        journal.step("key", {})
    journal.close()
    assert (tmp_path / "j").read_bytes() == whole  # the cut line is taken back
    assert read_journal(tmp_path / "j").results == {}


# Memory

@pytest.mark.parametrize("journal", [True, False])
def test_a_task_that_is_final_leaves_its_result_and_nothing_else(env, tmp_path, journal):
    runs, contexts = [], []

    class Watched(Value):
        async def estimate(self, situation):
            current = context()
            runs.append(current.run)
            contexts.append(weakref.ref(current))
            return await super().estimate(situation)

    model = scripted()
    program = asking(env, model)
    program.value = Watched(env.value_signature, model, samples=2, max_tokens=60)
    run_sync(run_tasks(program, env.tasks("test")[:8], journal=tmp_path / "j" if journal else None))
    run: Run = runs[0]
    assert model.requests and not run.own.replies and not run.asked and not run.flying and not run.gate._queues
    gc.collect()
    assert contexts and not any(ref() for ref in contexts)
