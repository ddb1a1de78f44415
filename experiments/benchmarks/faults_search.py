"""Searches whose CPU is measured, in this version or in an earlier one."""

import time

from stl_programs import GameOf24, GreedySearch, Policy, Value, run_sync, run_tasks


def search() -> float:
    """Milliseconds of CPU for one call."""
    env, spent, calls = GameOf24(), 0.0, 0
    for seed in range(6):
        program = GreedySearch(env, Policy(env.policy_signature, "hosted_vllm/sim", count=6, max_tokens=200),
                               Value(env.value_signature, "hosted_vllm/sim", samples=2, max_tokens=100))
        started = time.process_time()
        results = run_sync(run_tasks(program, env.tasks("test")[:24], seed=seed))
        if seed:  # the first pays for imports and connections
            spent += time.process_time() - started
            calls += sum(usage["calls"] for result in results for usage in result.usage.values())
    return 1000 * spent / calls


if __name__ == "__main__":
    print(search())
