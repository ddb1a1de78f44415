"""What lookahead could gain on the embedded shop: greedy search with judges that know the reward, before any training.

    python -m experiments.webshop.room [--noise 0.1] [--out FILE]

Two judges. The *myopic* one says what buying what is open now would be worth (nothing is open on a page of results).
The one that *looks ahead* says the best of that over the pages one action further: what Self-Taught Lookahead would
teach in the limit; everywhere, or on pages of results alone. All are reward-guided: they bound, they do not compete.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.kit.statistics import paired_difference
from stl_programs import BasePolicy, BaseValue, GreedySearch, LegalMoves, WebShop, engine, run_sync, run_tasks
from stl_programs.environments.webshop.reward import reward
from stl_programs.environments.webshop.shop import Session
from stl_programs.records import Sample, ValueEstimate
from stl_programs.situations import Proposal, Situation

SEEDS = range(5)


class Knowing(BaseValue):
    """A judge that knows the reward, and looks ahead from pages of these kinds.

    `noise`: standard deviation of what it says, on the scale of 0 to 1.
    """

    information = "reward-guided"

    def __init__(self, shop: WebShop, ahead: Sequence[str] = (), noise: float = 0.0):
        super().__init__()
        self.shop, self.ahead, self.noise = shop, tuple(ahead), noise

    def now(self, session: Session) -> float:
        if not session.asin:
            return 0.0
        shop = self.shop
        return reward(shop.catalogue.by_asin[session.asin], dict(session.options), shop.shop.prices[session.asin],
                      shop.goals[session.goal], shop.tagger).total

    async def estimate(self, situation: Situation) -> ValueEstimate:
        state = situation.state
        worth = self.now(state.data)
        if state.data.kind in self.ahead and not state.untaken:
            after = [self.now(self.shop.step(state, action).state.data) for action in self.shop.legal_actions(state)]
            worth = max(after, default=worth)
        draw = random.Random(f"{engine.context().seed}/{state.key}/{state.data.goal}").gauss(0, self.noise)
        score = 1 + 9 * min(max(worth + draw, 0.0), 1.0)
        return ValueEstimate(score, "It knows.", (Sample(score),))


class LooseSearches(BasePolicy):
    """Searches for `words` words of the instruction, drawn at random, `count` times; every legal action elsewhere."""

    def __init__(self, words: int = 3, count: int = 5):
        super().__init__()
        self.words, self.count, self.legal = words, count, LegalMoves()

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        shop, state = situation.environment, situation.state
        if state.data.kind != "index":
            return await self.legal.aforward(situation, count, exclude, draw)
        rng = random.Random(f"{engine.context().seed}/{situation.task.id}")
        said = situation.task.text.partition(", and price")[0].split()
        queries = dict.fromkeys(" ".join(rng.sample(said, min(self.words, len(said)))) for _ in range(self.count))
        actions = [shop.action(state, f"search[{query}]") for query in queries]
        steps = [engine.take(shop, situation.task, state, action) for action in actions]
        return [Proposal(action, step) for action, step in zip(actions, await engine.together(*steps), strict=True)]


def scores(shop: WebShop, policy: BasePolicy, value: BaseValue) -> np.ndarray:
    """[seeds, tasks] of the test tasks."""
    tasks = shop.tasks("test")
    results = run_sync(run_tasks(GreedySearch(shop, policy, value), tasks, seed=list(SEEDS)))
    found = [shop.score(shop.task(result.task), result.answer or "") for result in results]
    return np.array(found).reshape(len(SEEDS), len(tasks))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2])
    parser.add_argument("--out", type=Path, help="write the table there too")
    arguments = parser.parse_args(argv)
    shop = WebShop(tags="rules", max_depth=5)
    lines = ["| policy | noise | judge | score | success rate | score minus myopic | success minus myopic |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for policy in (LegalMoves(), LooseSearches(words=3), LooseSearches(words=2)):
        name = f"{policy.words} words at random, 5 times" if isinstance(policy, LooseSearches) else "every legal action"
        for noise in arguments.noise:
            myopic = scores(shop, policy, Knowing(shop, (), noise))
            lines.append(f"| {name} | {noise:g} | myopic | {myopic.mean():.3f} | {(myopic == 1).mean():.3f} | | |")
            for where, kinds in (("everywhere", ("results", "item")), ("on results", ("results",))):
                ahead = scores(shop, policy, Knowing(shop, kinds, noise))
                one, two = paired_difference(ahead, myopic), paired_difference(ahead == 1, myopic == 1)
                lines.append(f"| {name} | {noise:g} | ahead {where} | {ahead.mean():.3f} | "
                             f"{(ahead == 1).mean():.3f} | {one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}] | "
                             f"{two.mean:+.3f} [{two.low:+.3f}, {two.high:+.3f}] |")
            print("\n".join(lines[-3:]), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
