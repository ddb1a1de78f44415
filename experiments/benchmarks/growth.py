"""How a tree is grown over one endpoint: our search, treequest's and its_hub's, with requests that are counted.

All sides send the same prompts through the same `DirectModel`, at most 32 at once. One request judges one node. Where
successors come from is the judge's matter: `Judge` takes them from the environment for nothing, `Asking` and `Keeping`
ask the endpoint, where one reply names 5 moves:

- ours: `LegalMoves`; or `Policy` with its own count of 5, so one request for 5 nodes.
- treequest: `generate`, which its user writes and which makes one node, takes a random move; or asks and takes the
  first move that the reply names (`Asking`); or takes one that an earlier reply about the same state named, and asks
  where none is left (`Keeping`).
- its_hub: its step generation asks its language model for the next step of every path, and best-of-n for a whole
  response: random moves; or a request for each; with `Keeping` paths that are equal so far share replies.

Retained is a node that a library still holds with its value when it returns; what was judged and is dropped (a
duplicate that treequest marks invalid, a path that its_hub has cut) is paid for all the same, and is reported.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy

from experiments.benchmarks.peer_searches import STEP, imported, peer
from experiments.benchmarks.scripts import MOVES, NAMED
from stl_programs import engine
from stl_programs.models import Request, close_sessions
from stl_programs.models.formats import CompactFormat
from stl_programs.models.served.direct import DirectModel
from stl_programs.policies import LegalMoves, Policy
from stl_programs.records import Action, State
from stl_programs.search.best_first import BestFirstSearch
from stl_programs.testing.simulator import SimulatorProcess
from stl_programs.testing.tree_world import TreeWorld
from stl_programs.values import Value

IN_FLIGHT, LEVELS = 32, 4
NODES = 1920
TOKENS = 60


@dataclass(frozen=True)
class Grown:
    """What one run left: nodes held with a value, judgements and proposals that were paid for, and how long it took."""

    retained: int
    judged: int
    proposed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Retained nodes a second."""
        return self.retained / self.seconds


class Judge:
    """The client and the prompts that all sides share; counts requests. Moves are free."""

    count = MOVES
    """Successors of one expansion of ours."""

    def __init__(self, server: SimulatorProcess, seed: int):
        self.environment = TreeWorld(depth=12, branching=MOVES, transpositions=0.0)
        self.task, self.seed = self.environment.task(str(seed)), seed
        self.judged = self.proposed = 0
        self.model = DirectModel("hosted_vllm/sim", api_base=server.url, api_key="none")
        self.model.prompt_format = CompactFormat()
        self.value = Value(self.environment.value_signature, self.model, samples=1, max_tokens=TOKENS)
        self.root = self.environment.reset(self.task)
        self.gate = asyncio.Semaphore(IN_FLIGHT)

    def policy(self) -> dspy.Module:
        """Where our own search gets successors from."""
        return LegalMoves()

    async def ask(self, signature: type[dspy.Signature], state: State, seed: int) -> dict[str, Any]:
        """One request."""
        fields = {"task": self.task.text, "trajectory": state.trajectory, "state": state.text}
        messages = self.model.prompt_format.format(signature, [], fields)
        async with self.gate:
            reply = await self.model.complete(Request(messages, (seed,), max_tokens=TOKENS))
        return self.model.prompt_format.parse(signature, reply.texts[0])

    async def score(self, state: State) -> float:
        """One request; a score in [0, 1]."""
        fields = await self.ask(self.value.predict.signature, state, self.seed)
        self.judged += 1
        score = self.environment.scale.parse(str(fields["score"]))
        assert score is not None
        return score

    async def child(self, state: State) -> State:
        """A random successor."""
        return random.choice(self.environment.successors(state))[1].state

    async def scored_child(self, state: State | None) -> tuple[State, float]:
        """A successor of `state`, or of the root, with its score."""
        child = await self.child(state or self.root)
        return child, await self.score(child)

    async def response(self) -> list[str]:
        """The moves of a whole response."""
        return [str(random.randrange(MOVES)) for _ in range(LEVELS)]

    def after(self, text: str) -> State:
        """The state that the moves of a response lead to."""
        state = self.root
        for move in text.split():
            state = self.environment.step(state, Action(move)).state
        return state


class Asking(Judge):
    """Moves are asked for: a request a child, of whose moves the first is taken."""

    count = NAMED

    def policy(self) -> dspy.Module:
        return Policy(self.environment.policy_signature, self.model, count=NAMED, max_tokens=TOKENS)

    async def moves(self, state: State) -> list[str]:
        """One request; the moves that its reply names."""
        self.proposed += 1
        fields = await self.ask(self.environment.policy_signature, state, self.seed * 1_000_000 + self.proposed)
        return fields["actions"]

    async def child(self, state: State) -> State:
        [move, *_] = await self.moves(state)
        return self.environment.step(state, Action(move)).state

    async def response(self) -> list[str]:
        return (await self.moves(self.root))[:LEVELS]


class Keeping(Asking):
    """Moves are asked for, and kept: the next children of a state take those that are left over."""

    def __init__(self, server: SimulatorProcess, seed: int):
        super().__init__(server, seed)
        self.kept: dict[str, asyncio.Queue[str]] = {}
        self.unclaimed: dict[str, int] = {}

    async def child(self, state: State) -> State:
        kept = self.kept.setdefault(state.text, asyncio.Queue())
        if self.unclaimed.get(state.text):
            self.unclaimed[state.text] -= 1
        else:
            self.unclaimed[state.text] = NAMED - 1
            for move in await self.moves(state):
                kept.put_nowait(move)
        return self.environment.step(state, Action(await kept.get())).state


Side = Callable[[Judge], Grown]


def timed(judge: Judge, work: Callable[[], Awaitable[int]]) -> Grown:
    """Run `work`, which returns how many nodes it retained."""

    async def run() -> Grown:
        started = time.perf_counter()
        retained = await work()
        seconds = time.perf_counter() - started
        await close_sessions()
        return Grown(retained, judge.judged, judge.proposed, seconds)

    return asyncio.run(run())


def ours(judge: Judge, parallel: int) -> Grown:
    """Best-first search with `parallel` states being expanded at once, each with as many successors as it is given."""
    program = BestFirstSearch(judge.environment, judge.policy(), judge.value, parallel=parallel, enough=float("inf"),
                              expansions=NODES // judge.count)

    async def search() -> int:
        [result] = await engine.run_tasks(program, [judge.task], seed=judge.seed, in_flight=IN_FLIGHT)
        assert result.error is None, result.error
        judge.judged = result.usage["value"]["calls"]
        judge.proposed = result.usage.get("policy", {}).get("calls", 0)
        return result.states_judged

    return timed(judge, search)


def our_modes(*parallels: int) -> dict[str, Side]:
    return {f"best-first, {parallel} at once": partial(ours, parallel=parallel) for parallel in parallels}


def client_alone(judge: Judge) -> Grown:
    """The same judgements by 32 workers without any search: what this machine can reach."""
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
            return asyncio.run_coroutine_threadsafe(judge.scored_child(parent), loop).result()

        started, tree = time.perf_counter(), algorithm.init_tree()
        while judge.judged < nodes:
            if batch == 1:
                tree = algorithm.step(tree, {"next": generate})
                continue
            tree, trials = algorithm.ask_batch(tree, batch, ["next"])
            for trial in trials:
                tree = algorithm.tell(tree, trial.trial_id, generate(trial.parent_state))
        seconds = time.perf_counter() - started
    return Grown(len(algorithm.get_state_score_pairs(tree)), judge.judged, judge.proposed, seconds)


def treequest_rolling(judge: Judge, make: Callable[[], Any]) -> Grown:
    """Ask for one more whenever a node is judged; 32 under way."""
    algorithm = make()

    async def expand(trial: Any) -> tuple[Any, tuple[State, float]]:
        return trial, await judge.scored_child(trial.parent_state)

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
            results = await asyncio.gather(*(judge.scored_child(trial.parent_state) for trial in trials))
            for trial, result in zip(trials, results, strict=True):
                tree = algorithm.tell(tree, trial.trial_id, result)
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

    All steps, responses or rewards of a batch are asked for at once, 32 in flight, as its own orchestrator sends them.
    """

    class Moves(api.AbstractLanguageModel):
        async def agenerate(self, messages: Any, stop: str | None = None, **_: Any) -> list[dict[str, str]]:
            texts = [chat[-1].content if chat[-1].role == "assistant" else "" for chat in messages]
            children = await asyncio.gather(*(judge.child(judge.after(text)) for text in texts))
            return [{"role": "assistant", "content": child.history[-1]} for child in children]

        async def agenerate_single(self, messages: Any, stop: str | None = None, **_: Any) -> dict[str, str]:
            return {"role": "assistant", "content": STEP.join(await judge.response())}

    class Reward(api.AbstractProcessRewardModel):
        def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
            return asyncio.run(self.ascore(prompt_or_messages, steps))

        async def ascore(self, prompt_or_messages: Any, steps: Any = None, orchestrator: Any = None) -> list[float]:
            texts = steps or [conversation[-1].content for conversation in prompt_or_messages]
            return await asyncio.gather(*(judge.score(judge.after(text)) for text in texts))

    class Orchestrator(api.AbstractOrchestrator):
        async def agenerate(self, lm: Any, messages_lst: Any, **_: Any) -> list[dict[str, str]]:
            return await asyncio.gather(*map(lm.agenerate_single, messages_lst))

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
