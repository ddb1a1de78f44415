"""Every figure of faults: mutated replies, journals, programs and adapters, kills, a soak, and what it all costs.

    python -m experiments.benchmarks.faults [--only NAME] [--json FILE]

About 40 minutes on two cores, 20 of them the soak. FAULTS=0.01 takes a hundredth of every count.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import dspy

from experiments.benchmarks import faults_journal, faults_saved, killing
from experiments.benchmarks.face import Row, at_most, main
from experiments.benchmarks.faults_cost import cost
from experiments.benchmarks.faults_server import FaultyServer, mutated
from signatures import EstimateValue, NumberScale
from stl_programs import Budget, GameOf24, GreedySearch, Policy, Value, lm, run_sync, run_tasks
from stl_programs.errors import StlError
from stl_programs.models import Request
from stl_programs.models.base import Model
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.remote import DspyModel, LiteLLMModel
from stl_programs.predictor import Draw
from stl_programs.testing.simulator import Errors
from stl_programs.values.sampled import read_sample

SHARE = float(os.environ.get("FAULTS", "1"))
HANG = 5.0
"""Seconds after which a reply that was sent at once counts as a hang."""
_SCORE = re.compile(r"\[\[ ## score ## \]\]\s*\**\s*([0-9.]+)")


def count(whole: int) -> int:
    return max(int(whole * SHARE), 20)


class Judging(Value):
    """A Value whose draws are compared with what an independent reader finds in their texts."""

    def wrong(self, draws: list[Draw]) -> int:
        scale, found = NumberScale(1, 10), 0
        for draw in draws:
            score = read_sample(draw, scale).score if draw.fields else None
            said = _SCORE.findall((draw.text or "").rpartition("</think>")[2])
            found += score is not None and (not said or all(float(one) != score for one in said))
        return found


def replies() -> list[Row]:
    """Mutated replies through every transport: the direct client, LiteLLM, a dspy LM, and this package's own door."""
    tally: Counter[str] = Counter()
    roads = {"direct": 0.9, "LiteLLM": 0.03, "a dspy LM": 0.02, "the door": 0.05}
    for seed, (road, share) in enumerate(roads.items()):
        with FaultyServer(mutated, seed) as server, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_sync(_ask(_model(road, server.url), count(int(100_000 * share)), tally, road == "direct"))
            tally["replies"] += server.requests
    n = f"of {tally['replies']} by four transports; {tally['read']} draws read, {tally['refused']} calls refused"
    return [
        at_most("mutated replies: raw exceptions", tally["raw"], 0, "calls", n),
        at_most("mutated replies: scores that the text does not say", tally["wrong"], 0, "draws", n),
        at_most("mutated replies: counts below 0", tally["beyond"], 0, "calls", n),
        at_most(f"mutated replies: calls of more than {HANG:g} s", tally["hangs"], 0, "calls", n),
    ]


def _model(road: str, url: str) -> Any:
    if road == "direct":
        return DirectModel("hosted_vllm/m", api_base=url, api_key="none", timeout=HANG)
    if road == "LiteLLM":
        return LiteLLMModel("hosted_vllm/m", api_base=url, api_key="none", timeout=HANG)
    if road == "the door":
        return DspyModel(lm("hosted_vllm/m", api_base=url, api_key="none", timeout=HANG, cache=False, num_retries=0))
    return DspyModel(
        dspy.LM(
            "hosted_vllm/m", api_base=url, api_key="none", engine="litellm", cache=False, num_retries=0, timeout=HANG
        )
    )


async def _ask(model: Model, calls: int, tally: Counter[str], judged: bool) -> None:
    value, left = Judging(EstimateValue, model, samples=2, max_tokens=60), iter(range(calls))
    asked = dict.fromkeys(EstimateValue.input_fields, "x")
    messages = model.prompt_format.format(EstimateValue, [], asked)

    async def worker() -> None:
        for call in left:
            started = time.perf_counter()
            try:
                reply = await model.complete(Request(messages, (call, call + 1), max_tokens=60))
                draws = [value.predict._read(model.prompt_format, reply, i) for i in range(len(reply.texts))]
                tally["read"] += sum(draw.fields is not None for draw in draws)
                tally["wrong"] += value.wrong(draws)
                tally["beyond"] += min(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) < 0
            except StlError:
                tally["refused"] += 1
            except Exception as error:
                tally["raw"] += 1
                print(f"raw: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            tally["hangs"] += time.perf_counter() - started > HANG

    await asyncio.gather(*(worker() for _ in range(32)))


def budgets() -> list[Row]:
    """Random budgets against the same server, rude besides: its own count of requests, and our bill of tokens."""
    rng, over, raw, runs = random.Random(5), 0, 0, count(1000)
    env = GameOf24()
    for seed in range(runs):
        limit = Budget(calls=rng.randint(1, 30)) if rng.random() < 0.5 else Budget(tokens=rng.randint(500, 20_000))
        with FaultyServer(mutated, seed, rude=0.1) as server, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = DirectModel("hosted_vllm/m", api_base=server.url, api_key="none", timeout=1.0)
            program = GreedySearch(
                env,
                Policy(env.policy_signature, model, count=3, max_tokens=50),
                Value(env.value_signature, model, samples=rng.randint(1, 4), max_tokens=30),
            )
            try:
                results = run_sync(
                    run_tasks(
                        program,
                        env.tasks("test")[:4],
                        budget=limit,
                        seed=seed,
                        retries=1,
                        backoff=0.001,
                        in_flight=rng.choice((1, 4, 32)),
                    )
                )
            except Exception as error:
                raw += 1
                print(f"raw: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            bills = [usage for result in results for usage in result.usage.values()]
            tokens = sum(
                bill["prompt_tokens"] + bill["completion_tokens"] + bill["possibly_paid_tokens"] for bill in bills
            )
            over += server.requests > (limit.calls or 10**9) or tokens > (limit.tokens or 10**9)
    return [
        at_most("runs beyond their budget, by the server's count", over, 0, "runs", f"of {runs} random runs"),
        at_most("runs that raised", raw, 0, "runs", f"of {runs} random runs"),
    ]


def kills() -> list[Row]:
    """kill -9 at 100 random moments of a 64-task run with 10 % failing replies, resumed each time."""
    return killing.kill_and_resume(
        count(100) if SHARE >= 1 else 5, Errors(0.1, ("429", "500", "cut"), retry_after=0.01)
    )


def soak() -> list[Row]:
    """20 minutes, 32 at once, every fault at random: memory flat, every task answered or counted."""
    env, ends, missing, tasks, sizes = GameOf24(), time.monotonic() + 1200 * SHARE, 0, 0, list[float]()
    puzzles = env.tasks("train")
    seed = 0
    while time.monotonic() < ends:
        seed += 1
        with (
            FaultyServer(mutated, seed, rude=0.1, delay=0.02) as server,
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            model = DirectModel("hosted_vllm/m", api_base=server.url, api_key="none", timeout=1.0)
            program = GreedySearch(
                env,
                Policy(env.policy_signature, model, count=3, max_tokens=50),
                Value(env.value_signature, model, samples=2, max_tokens=30),
            )
            chosen = puzzles[(32 * seed) % (len(puzzles) - 32) :][:32]
            results = run_sync(
                run_tasks(
                    program,
                    chosen,
                    seed=seed,
                    retries=2,
                    backoff=0.01,
                    in_flight=32,
                    journal=Path(folder) / "journal.jsonl",
                )
            )
            tasks += len(results)
            missing += sum(result.answer is None and result.error is None for result in results)
        sizes.append(_memory())
    third = max(len(sizes) // 3, 1)
    early, late = (
        sum(sizes[third : 2 * third] or sizes) / len(sizes[third : 2 * third] or sizes),
        sum(sizes[-third:]) / third,
    )
    return [
        at_most("soak: tasks neither answered nor counted", missing, 0, "tasks", f"of {tasks}, in {seed} runs"),
        at_most(
            "soak: memory of the last third over that of the second",
            late / early,
            1.05,
            "x",
            f"{early:.0f} to {late:.0f} MB",
        ),
    ]


def _memory() -> float:
    """MB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def journals() -> list[Row]:
    """Journals that were damaged on the disk."""
    return faults_journal.faults(count(10_000))


BENCHMARKS = {"replies": replies, "budgets": budgets, "journals": journals, "saved": faults_saved.faults,
              "kills": kills, "soak": soak, "cost": cost}

if __name__ == "__main__":
    sys.exit(main(BENCHMARKS))
