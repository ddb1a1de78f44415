"""How fast trees grow: retained evaluated nodes a second, ours against treequest and its_hub.

One endpoint of 100 ms and 32 requests at once, so of 320 judgements a second at the most; one request judges one
node; moves cost nothing. All sides send the same prompts through the same `DirectModel`, at most 32 at once. Retained
is a node that a library still holds with its value when it returns; what was judged and is dropped (a duplicate that
treequest marks invalid, a path that its_hub has cut) is paid for all the same, and is reported.

"As documented" is the code of their own pages, with their budgets. "Best mode" is what a user can make of them: 32 in
flight and a large budget, with the algorithm that was fastest on another seed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks.face import Row, at_least, at_most, median_and_spread
from experiments.benchmarks.peer_searches import STEP, imported, peer
from experiments.intervals import paired_difference
from stl_programs import engine
from stl_programs.environments.tree_world import TreeWorld
from stl_programs.models import close_sessions
from stl_programs.models.direct import DirectModel
from stl_programs.models.formats import CompactFormat
from stl_programs.models.simulator import Latency, SimulatorProcess
from stl_programs.policy import LegalMoves
from stl_programs.records import Action, State
from stl_programs.search.best_first import BestFirstSearch
from stl_programs.value import Value

REPLY = "experiments.benchmarks.scripts:world_reply"
SECONDS, IN_FLIGHT, BRANCHING, LEVELS = 0.1, 32, 32, 4
LIMIT = IN_FLIGHT / SECONDS
NODES = 1920
SEEDS, PILOT = range(10), 99
CLIENT = "the client alone, without a search"


@dataclass(frozen=True)
class Grown:
    """What one run left: nodes held with a value, judgements that were paid for, and how long it took."""

    retained: int
    judged: int
    seconds: float

    @property
    def rate(self) -> float:
        """Retained nodes a second."""
        return self.retained / self.seconds


class Judge:
    """The client and the prompts that all sides share; counts judgements."""

    def __init__(self, server: SimulatorProcess, seed: int):
        self.environment = TreeWorld(depth=12, branching=BRANCHING, transpositions=0.0)
        self.task, self.seed, self.judged = self.environment.task(str(seed)), seed, 0
        self.model = DirectModel("hosted_vllm/sim", api_base=server.url, api_key="none")
        self.model.prompt_format = CompactFormat()
        self.value = Value(self.environment.value_signature, self.model, samples=1, max_tokens=60)
        self.root = self.environment.reset(self.task)

    async def score(self, state: State) -> float:
        """One request; a score in [0, 1]."""
        signature, format_ = self.value.predict.signature, self.model.prompt_format
        fields = {"task": self.task.text, "trajectory": state.trajectory, "state": state.text}
        reply = await self.model.complete(format_.format(signature, [], fields), [self.seed], temperature=1.0,
                                          max_tokens=60)
        self.judged += 1
        score = self.environment.scale.parse(str(format_.parse(signature, reply.texts[0])["score"]))
        assert score is not None
        return score

    def child(self, state: State | None) -> State:
        """A random successor."""
        return random.choice(self.environment.successors(state or self.root))[1].state

    def after(self, text: str) -> State:
        """The state that the moves of a response lead to."""
        state = self.root
        for move in text.split():
            state = self.environment.step(state, Action(move)).state
        return state


Side = Callable[[Judge], Grown]


def timed(judge: Judge, work: Callable[[], Awaitable[int]]) -> Grown:
    """Run `work`, which returns how many nodes it retained."""

    async def run() -> Grown:
        started = time.perf_counter()
        retained = await work()
        seconds = time.perf_counter() - started
        await close_sessions()
        return Grown(retained, judge.judged, seconds)

    return asyncio.run(run())


def ours(judge: Judge, parallel: int) -> Grown:
    """Best-first search with `parallel` states being expanded at once, each with 32 successors."""
    program = BestFirstSearch(judge.environment, LegalMoves(), judge.value, parallel=parallel, enough=float("inf"),
                              expansions=NODES // BRANCHING)

    async def search() -> int:
        [result] = await engine.run_tasks(program, [judge.task], seed=judge.seed, in_flight=IN_FLIGHT)
        assert result.error is None, result.error
        judge.judged = result.usage["value"]["calls"]
        return result.states_judged

    return timed(judge, search)


def our_modes() -> dict[str, Side]:
    return {f"best-first, {parallel} at once": partial(ours, parallel=parallel) for parallel in (2, 4, 8, 32)}


def client_alone(judge: Judge) -> Grown:
    """The same requests by 32 workers without any search: what this machine can reach."""
    states = [transition.state for _, transition in judge.environment.successors(judge.root)]

    async def send() -> int:
        left = iter(range(NODES))

        async def work() -> None:
            for request in left:
                await judge.score(states[request % len(states)])

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return judge.judged

    return timed(judge, send)


# treequest


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that synchronous code can hand coroutines to."""
    ready: Future[asyncio.AbstractEventLoop] = Future()

    def run() -> None:
        loop = asyncio.new_event_loop()
        ready.set_result(loop)
        loop.run_forever()
        loop.run_until_complete(close_sessions())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    loop = ready.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def treequest_documented(judge: Judge, batch: int, nodes: int = 20) -> Grown:
    """The Quick Start of its README: `step` by `step`, or `ask_batch` and `tell` in a loop."""
    algorithm = peer("treequest", "ABMCTSA")
    with loop_in_thread() as loop:
        def generate(parent: State | None) -> tuple[State, float]:
            state = judge.child(parent)
            return state, asyncio.run_coroutine_threadsafe(judge.score(state), loop).result()

        started, tree = time.perf_counter(), algorithm.init_tree()
        while judge.judged < nodes:
            if batch == 1:
                tree = algorithm.step(tree, {"next": generate})
                continue
            tree, trials = algorithm.ask_batch(tree, batch, ["next"])
            for trial in trials:
                tree = algorithm.tell(tree, trial.trial_id, generate(trial.parent_state))
        seconds = time.perf_counter() - started
    return Grown(len(algorithm.get_state_score_pairs(tree)), judge.judged, seconds)


def treequest_rolling(judge: Judge, make: Callable[[], Any]) -> Grown:
    """Ask for one more whenever a reply came; 32 in flight."""
    algorithm = make()

    async def expand(trial: Any) -> tuple[Any, tuple[State, float]]:
        state = judge.child(trial.parent_state)
        return trial, (state, await judge.score(state))

    async def search() -> int:
        tree, flying, begun = algorithm.init_tree(), set[asyncio.Task[Any]](), 0
        while begun < NODES or flying:
            if (room := min(IN_FLIGHT - len(flying), NODES - begun)) > 0:
                tree, trials = algorithm.ask_batch(tree, room, ["next"])
                begun += len(trials)
                flying |= {asyncio.ensure_future(expand(trial)) for trial in trials}
            done, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                trial, result = task.result()
                tree = algorithm.tell(tree, trial.trial_id, result)
        return len(algorithm.get_state_score_pairs(tree))

    return timed(judge, search)


def treequest_batches(judge: Judge, make: Callable[[], Any]) -> Grown:
    """Ask for 32, await all, tell all."""
    algorithm = make()

    async def search() -> int:
        tree = algorithm.init_tree()
        for _ in range(NODES // IN_FLIGHT):
            tree, trials = algorithm.ask_batch(tree, IN_FLIGHT, ["next"])
            states = [judge.child(trial.parent_state) for trial in trials]
            scores = await asyncio.gather(*map(judge.score, states))
            for trial, state, score in zip(trials, states, scores, strict=True):
                tree = algorithm.tell(tree, trial.trial_id, (state, score))
        return len(algorithm.get_state_score_pairs(tree))

    return timed(judge, search)


def treequest_modes() -> dict[str, Side]:
    algorithms = {
        "AB-MCTS-A": partial(peer, "treequest", "ABMCTSA"),
        "standard MCTS": partial(peer, "treequest", "StandardMCTS", samples_per_action=IN_FLIGHT),
        "best-first": partial(peer, "treequest.algos.best_first_search", "BestFirstSearchAlgo", num_samples=IN_FLIGHT)}
    return {f"{name}, {how}": partial(run, make=make) for name, make in algorithms.items()
            for how, run in (("rolling", treequest_rolling), (f"batches of {IN_FLIGHT}", treequest_batches))}


# its_hub


def parts(api: Any, judge: Judge) -> tuple[Any, Any, Any]:
    """A language model, a reward model and an orchestrator of its_hub's interfaces.

    Moves are free; a reward is a request, 32 at once as its own orchestrator sends them.
    """
    gate = asyncio.Semaphore(IN_FLIGHT)

    class Moves(api.AbstractLanguageModel):
        async def agenerate(self, messages: Any, stop: str | None = None, **_: Any) -> list[dict[str, str]]:
            texts = [chat[-1].content if chat[-1].role == "assistant" else "" for chat in messages]
            return [{"role": "assistant", "content": judge.child(judge.after(text)).history[-1]} for text in texts]

        async def agenerate_single(self, messages: Any, stop: str | None = None, **_: Any) -> dict[str, str]:
            return {"role": "assistant", "content": STEP.join(str(random.randrange(BRANCHING)) for _ in range(LEVELS))}

    class Reward(api.AbstractProcessRewardModel):
        def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
            return asyncio.run(self.ascore(prompt_or_messages, steps))

        async def ascore(self, prompt_or_messages: Any, steps: Any = None, orchestrator: Any = None) -> list[float]:
            texts = steps or [conversation[-1].content for conversation in prompt_or_messages]

            async def one(text: str) -> float:
                async with gate:
                    return await judge.score(judge.after(text))

            return await asyncio.gather(*map(one, texts))

    class Orchestrator(api.AbstractOrchestrator):
        async def agenerate(self, lm: Any, messages_lst: Any, **_: Any) -> list[dict[str, str]]:
            return [await lm.agenerate_single(messages) for messages in messages_lst]

    return Moves(), Reward(), Orchestrator()


def its_hub(judge: Judge, algorithm: str, budget: int, **options: Any) -> Grown:
    """Infer with `budget`. Of its paths those that the result holds are retained."""
    async def infer() -> int:
        moves, reward, orchestrator = parts(imported("its_hub.api"), judge)
        steps = peer("its_hub.core.lms.step_generation", "StepGeneration", max_steps=LEVELS - 1, step_token=STEP)
        if algorithm == "best of n":
            search = peer("its_hub.core.algorithms.bon", "BestOfN", reward, orchestrator)
        elif algorithm == "beam search":
            search = peer("its_hub.core.algorithms.beam_search", "BeamSearch", steps, reward, **options)
        else:
            search = peer("its_hub.core.algorithms.particle_gibbs", "ParticleFiltering", steps, reward)
        result = await search.ainfer(moves, "start", budget, return_response_only=False)
        paths = [tuple(response["content"].split()) for response in result.responses]
        if algorithm == "best of n":
            return len(set(paths))
        return len({path[:depth] for path in paths for depth in range(1, len(path) + 1)})

    return timed(judge, infer)


def its_hub_modes() -> dict[str, Side]:
    budget = NODES // LEVELS
    found: dict[str, Side] = {
        f"beam search, budget {budget}, width {width}": partial(
            its_hub, algorithm="beam search", budget=budget, beam_width=width) for width in (20, 120, 240)}
    found[f"{budget} particles"] = partial(its_hub, algorithm="particle filtering", budget=budget)
    found[f"best of {NODES}"] = partial(its_hub, algorithm="best of n", budget=NODES)
    return found


DOCUMENTED: dict[str, Side] = {
    "treequest, README: step": partial(treequest_documented, batch=1),
    "treequest, README: ask_batch of 5": partial(treequest_documented, batch=5),
    "its_hub, README: best of 5": partial(its_hub, algorithm="best of n", budget=5),
    "its_hub, docs: beam search, budget 32, width 4": partial(
        its_hub, algorithm="beam search", budget=32, beam_width=4),
    "its_hub, docs: 8 particles": partial(its_hub, algorithm="particle filtering", budget=8)}


def grow(sides: dict[str, Side], seeds: Sequence[int]) -> dict[str, list[Grown]]:
    """Every side once per seed, in turns, each against a server without anything remembered."""
    found: dict[str, list[Grown]] = {name: [] for name in sides}
    with SimulatorProcess(REPLY, ["sim"], latency=Latency(SECONDS), capacity=IN_FLIGHT) as server:
        ours(Judge(server, PILOT), parallel=4)  # pays for imports and connections
        gc.collect()
        gc.freeze()  # a full collection of what dspy has imported would stop any side for a quarter of a second
        for seed in seeds:
            for name, side in sides.items():
                server.reset()
                random.seed(seed)
                np.random.seed(seed)
                found[name].append(side(Judge(server, seed)))
    return found


def _row(name: str, runs: Sequence[Grown]) -> Row:
    figure, spread = median_and_spread(one.rate for one in runs)
    judged, retained = sum(one.judged for one in runs), sum(one.retained for one in runs)
    return Row(f"retained nodes a second: {name}", figure, "nodes/s", spread=f"{spread}; drops {judged - retained} of "
               f"{judged} judged")


def fastest(modes: dict[str, Side]) -> str:
    """The mode of the highest rate on the pilot seed."""
    runs = grow(modes, [PILOT])
    return max(runs, key=lambda name: runs[name][0].rate)


def node_rates() -> list[Row]:
    """Retained evaluated nodes a second at 32 in flight, beside the endpoint's limit and the peers."""
    logging.getLogger("treequest").setLevel(logging.ERROR)  # it warns of each node that it drops
    mine = fastest(our_modes())
    best = {f"{name}, {mode}": modes[mode] for name, modes in (
        ("treequest", treequest_modes()), ("its_hub", its_hub_modes())) for mode in [fastest(modes)]}
    runs = grow({(us := f"ours, {mine}"): our_modes()[mine], CLIENT: client_alone} | best | DOCUMENTED,
                SEEDS)
    rate = {name: np.array([one.rate for one in found]) for name, found in runs.items()}
    rows = [_row(name, found) for name, found in runs.items()]
    rows.append(at_most("judged nodes that ours drops", sum(one.judged - one.retained for one in runs[us]), 0))
    figure, spread = median_and_spread(rate[us] / LIMIT)
    rows.append(at_least("retained nodes a second over the endpoint's limit, ours", figure, 0.95, "", spread))
    for name in DOCUMENTED:
        figure, spread = median_and_spread(rate[us] / rate[name])
        rows.append(at_least(f"ours over {name}", figure, 10, "x", spread))
    better = max(best, key=lambda name: float(np.median(rate[name])))
    gap = paired_difference(rate[us], rate[better], draws=100_000)
    rows.append(Row(f"ours minus the better best mode ({better})", gap.mean, "nodes/s", "not below 0",
                    bool(gap.high >= 0), f"{gap.low:.4g} to {gap.high:.4g}, 95% of {len(SEEDS)}"))
    return rows
