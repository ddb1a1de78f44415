"""Searches whose CPU is measured, in this version or in an earlier one. `python faults_search.py --kept` has dspy keep
histories and traces, as it does by default."""

import sys
import time
from itertools import product

import dspy

from stl_programs import GameOf24, GreedySearch, Policy, Value, run_sync, run_tasks

PUZZLES = """4 12 12 12, 3 3 9 12, 1 3 6 6, 1 4 6 13, 1 2 5 8, 11 11 12 12, 5 10 10 12, 1 3 6 13, 1 2 4 9, 2 6 7 10,
    3 5 5 9, 4 7 12 12, 1 4 9 11, 3 3 7 11, 4 5 7 11, 2 3 3 8, 6 9 11 13, 3 3 3 5, 3 5 6 12, 1 7 12 13, 2 9 12 13,
    2 10 11 12, 1 7 8 10, 6 6 7 12"""
"""As texts: a split would make the earlier version remember two million numbers, and Python's full collections, which
come when the heap has grown by a quarter, would all but end for it alone."""


def search() -> float:
    """Milliseconds of CPU for one call. All is done twice: the first time pays for imports, connections, and for the
    world's own work, which it remembers."""
    env, spent, calls = GameOf24(), 0.0, 0
    tasks = [env.task(text.strip()) for text in PUZZLES.split(",")]
    for turn, seed in product(range(2), range(5)):
        program = GreedySearch(env, Policy(env.policy_signature, "hosted_vllm/sim", count=6, max_tokens=200),
                               Value(env.value_signature, "hosted_vllm/sim", samples=2, max_tokens=100))
        started = time.process_time()
        results = run_sync(run_tasks(program, tasks, seed=seed))
        if turn:
            spent += time.process_time() - started
            calls += sum(usage["calls"] for result in results for usage in result.usage.values())
    return 1000 * spent / calls


if __name__ == "__main__":
    if "--kept" not in sys.argv:
        dspy.configure(disable_history=True, max_trace_size=0)
    print(search())
