"""How fast trees grow: retained evaluated nodes a second, ours against treequest and its_hub.

One endpoint of 100 ms and 32 requests at once, so of 320 requests a second at the most; see `growth` for what each
side asks it. In the first rows moves cost nothing: they compare searches as such. In the others every side asks for its
moves at the same endpoint, and pays for them: it answers what a user would see.

"As documented" is the code of their own pages, with their budgets; moves are asked of a language model there. Where
moves are free, its_hub's best of 5 still fills 5 of the 32 slots, and no search on this endpoint can be ten times as
fast. "Best mode" is what a user can make of them: 32 in flight and a large budget, with the algorithm that was fastest
on another seed.
"""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.face import Row, at_least, at_most, median_and_spread
from experiments.benchmarks.growth import (
    DOCUMENTED,
    IN_FLIGHT,
    Asking,
    Grown,
    Judge,
    Keeping,
    Side,
    client_alone,
    its_hub_modes,
    our_modes,
    ours,
    treequest_modes,
)
from experiments.benchmarks.scripts import NAMED
from experiments.kit.statistics import paired_difference
from stl_programs.testing.simulator import Latency, SimulatorProcess

REPLY = "experiments.benchmarks.scripts:world_reply"
SECONDS = 0.1
LIMIT = IN_FLIGHT / SECONDS
SEEDS, PILOT = range(10), 99
CLIENT = "the client alone, without a search"

Sides = dict[str, tuple[type[Judge], Side]]
"""By name: where its moves come from, and how it grows a tree."""


def grow(sides: Sides, seeds: Sequence[int]) -> dict[str, list[Grown]]:
    """Every side once per seed, in turns, each against a server without anything remembered."""
    found: dict[str, list[Grown]] = {name: [] for name in sides}
    logging.getLogger("treequest").setLevel(logging.ERROR)  # it warns of each node that it drops
    with SimulatorProcess(REPLY, ["sim"], latency=Latency(SECONDS), capacity=IN_FLIGHT) as server:
        ours(Judge(server, PILOT), parallel=4)  # pays for imports and connections
        gc.collect()
        gc.freeze()  # a full collection of what dspy has imported would stop any side for a quarter of a second
        for seed in seeds:
            for name, (judge, side) in sides.items():
                server.reset()
                random.seed(seed)
                np.random.seed(seed)
                found[name].append(side(judge(server, seed)))
    return found


def fastest(modes: Sides) -> Sides:
    """The mode of the highest rate on the pilot seed."""
    runs = grow(modes, [PILOT])
    name = max(runs, key=lambda name: runs[name][0].rate)
    return {name: modes[name]}


def named(library: str, modes: dict[str, Side], judge: type[Judge], how: str = "") -> Sides:
    return {f"{library}, {mode}{how}": (judge, side) for mode, side in modes.items()}


def node_rates() -> list[Row]:
    """Retained evaluated nodes a second at 32 in flight, beside the endpoint's limit and the peers; moves are free."""
    mine = fastest(named("ours", our_modes(2, 4, 8, 32), Judge))
    best = [fastest(named(library, modes, Judge)) for library, modes in (
        ("treequest", treequest_modes()), ("its_hub", its_hub_modes()))]
    rows, rates = compared(mine, {CLIENT: (Judge, client_alone)}, best, Judge, "")
    figure, spread = median_and_spread(rates / LIMIT)
    return [*rows, at_least("retained nodes a second over the endpoint's limit, ours", figure, 0.95, "", spread)]


def node_rates_with_proposals() -> list[Row]:
    """The same where every side asks the endpoint for its moves too."""
    mine = fastest(named("ours", our_modes(8, 16, 32), Asking))
    best = [fastest(named(library, modes, Asking) | named(library, modes, Keeping, ", replies kept"))
            for library, modes in (("treequest", treequest_modes()), ("its_hub", its_hub_modes()))]
    rows, rates = compared(mine, {}, best, Asking, ", moves asked for")
    limit = LIMIT * NAMED / (NAMED + 1)
    figure, spread = median_and_spread(rates / limit)
    label = f"retained nodes a second over the endpoint's limit ({limit:.1f}), ours, moves asked for"
    return [*rows, Row(label, figure, spread=spread)]


def compared(mine: Sides, beside: Sides, best: Sequence[Sides], documented: type[Judge],
             suffix: str) -> tuple[list[Row], Any]:
    """A row per side, then ours over the others, paired by seed; and the rates of ours."""
    [us] = mine
    modes: Sides = {name: side for one in best for name, side in one.items()}
    runs = grow(mine | beside | modes | {name: (documented, side) for name, side in DOCUMENTED.items()}, SEEDS)
    rate = {name: np.array([one.rate for one in found]) for name, found in runs.items()}
    rows = [row(f"retained nodes a second{suffix}: {name}", found) for name, found in runs.items()]
    dropped = sum(one.judged - one.retained for one in runs[us])
    rows.append(at_most(f"judged nodes that ours drops{suffix}", dropped, 0))
    for name in DOCUMENTED:
        figure, spread = median_and_spread(rate[us] / rate[name])
        rows.append(at_least(f"ours over {name}{suffix}", figure, 10, "x", spread))
    better = max(modes, key=lambda name: float(np.median(rate[name])))
    gap = paired_difference(rate[us], rate[better], draws=100_000)
    rows.append(Row(f"ours minus the better best mode ({better}){suffix}", gap.mean, "nodes/s", "not below 0",
                    bool(gap.high >= 0), f"{gap.low:.4g} to {gap.high:.4g}, 95% of {len(SEEDS)}"))
    return rows, rate[us]


def row(name: str, runs: Sequence[Grown]) -> Row:
    """The median rate, and what was paid for over all runs."""
    figure, spread = median_and_spread(one.rate for one in runs)
    judged, retained, proposed = (sum(getattr(one, field) for one in runs)
                                  for field in ("judged", "retained", "proposed"))
    asked = f"; {proposed} requests for moves" if proposed else ""
    return Row(name, figure, "nodes/s", spread=f"{spread}; drops {judged - retained} of {judged} judged{asked}")
