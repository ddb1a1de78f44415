"""What the engine costs and saves, against a simulated server in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.face import Row, at_least, at_most, median_and_spread
from stl_programs import BeamSearch, Budget, GameOf24, GreedySearch, Policy, Value, run_sync, run_tasks
from stl_programs.engine import Context, Run, enter
from stl_programs.models import Request, close_sessions
from stl_programs.models.formats import CompactFormat, LookaheadFormat
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.remote import LiteLLMModel
from stl_programs.testing.simulator import Errors, Latency, SimulatorProcess
from stl_programs.testing.tree_world import TreeWorld

WORLD = "experiments.benchmarks.scripts:world_reply"
GAME24 = "stl_programs.testing.game24_script:game24_script"
SEEDS = range(10)


def direct(server: SimulatorProcess, **options: Any) -> DirectModel:
    return DirectModel("hosted_vllm/sim", api_base=server.url, api_key="none", **options)


def greedy(env: Any, model: Any, count: int = 5, samples: int = 5) -> GreedySearch:
    return GreedySearch(env, Policy(env.policy_signature, model, count=count, max_tokens=100),
                        Value(env.value_signature, model, samples=samples, max_tokens=60))


def greedy_episode() -> list[Row]:
    """One greedy episode, depth 5, B = 5, 5 samples, 100 ms a request: wall over its critical path."""
    env, latency, rows = TreeWorld(depth=5, branching=5, transpositions=0.0), 0.1, list[Row]()
    with SimulatorProcess(WORLD, ["sim"], latency=Latency(latency)) as server:
        for name, model in (("direct client", direct(server)), ("LiteLLM", LiteLLMModel(
                "hosted_vllm/sim", api_base=server.url, api_key="none"))):
            ratios = []
            for seed in (999, *SEEDS):  # the first pays for imports and connections
                started = time.perf_counter()
                [result] = run_sync(run_tasks(greedy(env, model), [env.task(str(seed))], seed=seed, in_flight=64))
                ratios.append((time.perf_counter() - started) / (2 * env.max_depth * latency))
                assert result.error is None, result.error
            figure, spread = median_and_spread(ratios[1:])
            label = f"greedy episode, wall / critical path, {name}"
            rows.append(at_most(label, figure, 1.10, "x", spread) if not rows else Row(label, figure, "x", None, None,
                                                                                         spread))
    return rows


def rounds() -> list[Row]:
    """Beam search on Game of 24 with a model policy: the longest chain of requests that waited for one another."""
    env, chains, costs = GameOf24(), [], []
    with SimulatorProcess(GAME24, ["sim"], latency=Latency(0.05)) as server:
        model = direct(server)
        for task in env.tasks("test")[:len(SEEDS)]:
            server.reset()
            program = BeamSearch(env, Policy(env.policy_signature, model, count=8, max_tokens=200),
                                 Value(env.value_signature, model, samples=3, max_tokens=100), width=5)
            [result] = run_sync(run_tasks(program, [task], in_flight=256))
            assert result.error is None, result.error
            chains.append(longest_chain([(row["arrival"], row["end"]) for row in server.log()]))
            costs.append(len(server.log()))
    figure, spread = median_and_spread(chains)
    return [at_most("sequential rounds of a beam search", figure, 8, "rounds", f"{spread}; at most {max(chains):g}; "
                    f"{np.median(costs):g} requests"),
            Row("sequential rounds, Tree of Thoughts as published", 45, "rounds", None, None, "45 to 88")]


def longest_chain(intervals: Sequence[tuple[float, float]]) -> int:
    """The most requests of which each began after the one before had ended."""
    chain, last = 0, float("-inf")
    for start, end in sorted(intervals, key=lambda interval: interval[1]):
        if start >= last:
            chain, last = chain + 1, end
    return chain


def utilisation(capacity: int, goal: float, tasks: int) -> list[Row]:
    env, shares = TreeWorld(depth=3, branching=5, transpositions=0.0), []
    for seed in SEEDS:
        with SimulatorProcess(WORLD, ["sim"], latency=Latency(0.5, sigma=1.0, seed=seed), capacity=capacity) as server:
            worlds = [env.task(str(1000 * seed + i)) for i in range(tasks)]
            results = run_sync(run_tasks(greedy(env, direct(server), samples=1), worlds, seed=seed,
                                         in_flight=capacity))
            assert not any(result.error for result in results)
            log = server.log()
        opened = last_opening(log, tasks)
        shares.append(busy(log, opened) / capacity)
    figure, spread = median_and_spread(shares)
    return [at_least(f"in flight / capacity {capacity}, log-normal latency", figure, goal, "", spread)]


def last_opening(log: Sequence[dict[str, Any]], tasks: int) -> float:
    """When the last task sent its first request: until then, work remains that could be begun."""
    return sorted(row["arrival"] for row in log)[-tasks] if len(log) > tasks else log[-1]["arrival"]


def busy(log: Sequence[dict[str, Any]], until: float) -> float:
    """The mean number of requests in service from the first arrival to `until`."""
    begin = min(row["arrival"] for row in log)
    return sum(min(row["end"], until) - row["start"] for row in log if row["start"] < until) / (until - begin)


def utilisation_32() -> list[Row]:
    """In flight over capacity 32 with log-normal latency (median 500 ms, sigma 1), while work remains."""
    return utilisation(32, 0.95, 100)


def utilisation_128() -> list[Row]:
    """In flight over capacity 128 with log-normal latency (median 500 ms, sigma 1), while work remains."""
    return utilisation(128, 0.90, 400)


def overhead() -> list[Row]:
    """CPU per model call above the same transport called directly, in this process."""
    env, calls, rows = TreeWorld(depth=2, branching=2, transpositions=0.0), 400, []
    with SimulatorProcess(WORLD, ["sim"]) as server:
        for name, prompt_format, goal in (("compact adapter", CompactFormat(), 0.5),
                                          ("ChatAdapter", LookaheadFormat(), 1.0)):
            model = direct(server)
            model.prompt_format = prompt_format
            value = Value(env.value_signature, model, samples=1, max_tokens=60)
            extra = []
            for seed in (999, *SEEDS):
                ours = run_sync(_cpu(_ours(value, env, seed, calls)))
                bare = run_sync(_cpu(_bare(value, model, env, seed, calls)))
                extra.append((ours - bare) / calls * 1000)
            figure, spread = median_and_spread(extra[1:])
            rows.append(at_most(f"CPU per call above the transport, {name}", figure, goal, "ms", spread))
    return rows


async def _cpu(work: Any) -> float:
    started = time.process_time()
    await work
    await close_sessions()
    return time.process_time() - started


def _inputs(env: TreeWorld, seed: int, call: int) -> dict[str, Any]:
    return {"task": str(seed), "trajectory": "", "state": f"world {seed}: {call}"}


async def _ours(value: Value, env: TreeWorld, seed: int, calls: int) -> None:
    """Judgements through predictor, engine and parser."""
    enter(current := Context(Run(), seed, task="t", scope="t"))

    async def one(call: int) -> None:
        draws = await value.predict.draw(_inputs(env, seed, call), [current.draw_seed(call)], about=str(call))
        assert draws[0].fields is not None, draws[0].missing

    await asyncio.gather(*(one(call) for call in range(calls)))


async def _bare(value: Value, model: DirectModel, env: TreeWorld, seed: int, calls: int) -> None:
    """The same requests by the client alone, 32 at once, their messages made before the clock."""
    messages = model.prompt_format.format(value.predict.signature, [], _inputs(env, seed, 0))
    gate = asyncio.Semaphore(32)

    async def one(call: int) -> None:
        async with gate:
            await model.complete(Request(messages, (call,), max_tokens=60))

    await asyncio.gather(*(one(call) for call in range(calls)))


def failures() -> list[Row]:
    """A tenth of the replies fail in five ways: does every task end, and does every budget hold?"""
    env, unended, overshoots, failed, ended = GameOf24(), [], [], 0, 0
    for seed in SEEDS:
        errors = Errors(rate=0.1, timeout_seconds=1.0, seed=seed)
        with SimulatorProcess(GAME24, ["sim"], latency=Latency(0.005), errors=errors) as server:
            model = direct(server, timeout=0.3)
            program = BeamSearch(env, Policy(env.policy_signature, model, count=6, max_tokens=200),
                                 Value(env.value_signature, model, samples=3, max_tokens=100), width=3)
            budget = Budget(calls=1500, tokens=2_500_000)
            results = run_sync(run_tasks(program, env.tasks("test")[:16], seed=seed, budget=budget, backoff=0.01))
            unended.append(sum(result.answer is None and result.error is None for result in results))
            failed += sum(result.error is not None for result in results)
            ended += sum(result.ended is not None for result in results)
            sent, stats = len(server.log()), server.stats()
            overshoots.append(max(sent - 1500, stats["prompt_tokens"] + stats["completion_tokens"] - 2_500_000, 0))
    n = len(SEEDS) * 16
    return [at_most("tasks without an answer or a reason, 10 % of replies failing", sum(unended), 0, "tasks",
                    f"of {n}; {failed} with a reason, {ended} ended by the budget"),
            at_most("calls or tokens beyond the budget, 10 % of replies failing", max(overshoots), 0, "",
                    f"worst of {len(SEEDS)} runs, by the server's own count")]


