"""Every figure of the searches and their engine, in one run.

    python -m experiments.benchmarks.search [--only NAME] [--json FILE]

About an hour on two cores. The peers need the `benchmarks` extra.
"""

from __future__ import annotations

import sys

from experiments.benchmarks import engine, growing, killing, peers, regret, tree
from experiments.benchmarks.face import main

BENCHMARKS = {
    "greedy-episode": engine.greedy_episode, "rounds": engine.rounds, "utilisation-32": engine.utilisation_32,
    "utilisation-128": engine.utilisation_128, "overhead": engine.overhead, "simulations": tree.simulations,
    "own-loops": tree.own_loops, "children": growing.children_of_one_node, "progress": growing.progress,
    "waiting": growing.waiting_for_a_budget, "memory": growing.memory,
    "kill": killing.kill_and_resume, "failures": engine.failures, "node-rates": peers.node_rates,
    "node-rates-with-proposals": peers.node_rates_with_proposals,
    "regret-at-equal-calls": regret.regret_at_equal_calls,
    "regret-where-states-repeat": regret.regret_where_states_repeat,
    "regret-of-parallel-simulations": regret.regret_of_parallel_simulations}

if __name__ == "__main__":
    sys.exit(main(BENCHMARKS))
