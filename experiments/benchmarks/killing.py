"""kill -9 at random moments, resume, again: what was journaled is never sent again, and the end is the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.benchmarks.face import Row, at_most
from stl_programs import GameOf24, GreedySearch, Policy, TaskResult, Value, run_sync, run_tasks
from stl_programs.children import environment_of_child
from stl_programs.engine import read_journal
from stl_programs.models.served.direct import DirectModel
from stl_programs.testing.simulator import Errors, Latency, SimulatorProcess

TASKS, KILLS = 64, 30


def run(url: str, journal: Path) -> list[TaskResult]:
    """Greedy search of 64 puzzles with a served policy and value."""
    env, model = GameOf24(), DirectModel("hosted_vllm/sim", api_base=url, api_key="none")
    program = GreedySearch(env, Policy(env.policy_signature, model, count=6, max_tokens=200),
                           Value(env.value_signature, model, samples=2, max_tokens=100))
    return run_sync(run_tasks(program, env.tasks("test")[:TASKS], seed=1, in_flight=8, journal=journal))


def kill_and_resume(times: int = KILLS, errors: Errors | None = None) -> list[Row]:
    """kill -9 at random moments of a 64-task run, some of whose replies fail, resumed each time."""
    reply = "stl_programs.testing.game24_script:game24_script"
    latency = Latency(0.05 * max(times / KILLS, 1))  # the run outlasts its kills
    with tempfile.TemporaryDirectory() as folder, SimulatorProcess(reply, ["sim"], latency=latency,
                                                                   errors=errors or Errors()) as server:
        whole = run(server.url, Path(folder) / "whole.jsonl")
        server.reset()
        journal, rng, kills = Path(folder) / "killed.jsonl", random.Random(30), 0
        while kills < times:
            process = subprocess.Popen([sys.executable, "-m", "experiments.benchmarks.killing", server.url,
                                        str(journal)], env=environment_of_child())
            size = journal.stat().st_size if journal.exists() else 0
            while process.poll() is None and (not journal.exists() or journal.stat().st_size == size):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.35))
            if process.poll() is not None:
                raise RuntimeError(f"the run ended after {kills} of {times} kills; make it longer")
            process.kill()
            process.wait()
            kills += 1
        results = run(server.url, journal)
        sent_again, resent, lost = audit(journal, server.log())
    different = sum(_outcome(a) != _outcome(b) for a, b in zip(whole, results, strict=True))
    return [at_most("journaled calls sent again", sent_again, 0, "calls", f"{kills} kills; {resent} calls that failed "
                    "or were in flight were sent again"),
            at_most("calls sent again beyond those that failed or were in flight", lost, 0, "calls",
                    "by the server's own log"),
            at_most("tasks lost", TASKS - len({result.task for result in results if result.answer}), 0, "tasks",
                    f"of {TASKS}"),
            at_most("tasks that ended otherwise than without kills", different, 0, "tasks", f"of {TASKS}")]


def audit(journal: Path, log: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Calls sent after their reply was journaled; calls sent twice; those that were neither in flight nor failed."""
    replied, again = set[str](), 0
    for line in journal.read_text().splitlines()[1:]:
        row = json.loads(line)
        again += row.get("sent") in replied
        replied |= {row["reply"]} if "reply" in row else set()
    resent = sum(count - 1 for count in Counter(row["key"] for row in log).values())
    held = read_journal(journal)
    return again, resent, max(resent - len(held.possibly_paid) - len(held.refused), 0)


def _outcome(result: TaskResult) -> tuple[Any, ...]:
    calls = {role: usage["calls"] for role, usage in result.usage.items()}
    return result.answer, result.trajectory, result.states_judged, calls


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
