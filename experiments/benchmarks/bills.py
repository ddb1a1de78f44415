"""Our bills against a simulated server's own count, with failures of every kind and with shared requests.

What the server counts for a request depends on what became of its reply. Received whole: its tokens, exactly those
that it names in the reply. Refused (429, 500): nothing. Lost (cut half-way, or held until the client gave up): the
server has worked and a provider may charge, but no usage ever arrives. Such a request is on our bills as possibly paid,
with the upper bound that its budget had reserved (the prompt's bytes, and max_tokens for every draw).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.benchmarks.face import Row, at_most, main
from stl_programs import Budget, TaskResult, run_sync, run_tasks
from stl_programs.costs import Bill, bills_of, total
from stl_programs.engine import complete, context, read_journal, together
from stl_programs.environments import Environment
from stl_programs.models import Model
from stl_programs.models.base import Messages, Request
from stl_programs.models.served.direct import DirectModel
from stl_programs.records import Task
from stl_programs.testing.simulator import Errors, Latency, Simulator, SimulatorProcess
from stl_programs.testing.tree_world import TreeWorld
from stl_programs.tree import Found, Tree

PRICES = {"policy-sim": {"prompt": 2.5, "cached_prompt": 1.25, "completion": 10.0},
          "value-sim": {"prompt": 0.05, "cached_prompt": 0.01, "completion": 0.08}}
"""Dollars per million tokens."""
KINDS = ("429", "500", "timeout", "cut")
MAX_TOKENS = {"policy-sim": 100, "value-sim": 60}
EACH, FAMILIES, PREFIX = 10, 8, 120
"""Requests of one task; prompts that begin alike; the words that they begin with."""


def reply(messages: Messages, model: str, seed: int) -> str:
    """5 to 45 words, by the draw."""
    return " ".join(["word"] * (5 + seed % 41))


class Free(TreeWorld):
    """A world whose values do not depend on the task, so that tasks may share requests."""

    task_free_values = True


class Asking:
    """A search that only asks: ten requests a task with n = 1 to 5, some twice at once, and one of the next task's."""

    information = "reward-free"

    def __init__(self, policy: Model, value: Model, calls: int):
        self.environment: Environment = Free()
        self.budget: Budget | None = None
        self.policy, self.value, self.calls, self.asked = policy, value, calls, 0

    def models(self) -> list[Model]:
        return [self.policy, self.value]

    async def search(self, task: Task) -> Found:
        first = int(task.text) * EACH
        wanted = [*range(first, first + EACH), *range(first, first + EACH, 3), (first + EACH) % self.calls]
        await together(*(self._ask(number) for number in wanted))
        tree = Tree(task, self.environment.reset(task))
        return Found(tree, tree.root, "")

    async def commit(self, found: Found) -> Found:
        return found

    async def _ask(self, number: int) -> None:
        role, model = ("policy", self.policy) if number % 2 else ("value", self.value)
        seeds = tuple(context().draw_seed(number, i) for i in range(1 + number // 2 % 5))
        self.asked += 1
        name = model.name.partition("/")[2]
        await complete(context(), model, Request(messages_of(name, number), seeds, max_tokens=MAX_TOKENS[name],
                                                 role=role))


def messages_of(model: str, number: int) -> Messages:
    """Prompts of one model are equally long, so that their bounds are."""
    return [{"role": "user", "content": f"{' '.join([f'{model}-{number % FAMILIES}'] * PREFIX)} call {number:06d}"}]


def ledger() -> list[Row]:
    """1,000 requests to two models, 5 % failing in four ways, some asked for twice: bills against the server's log."""
    errors = Errors(rate=0.05, kinds=KINDS, timeout_seconds=10.0)
    with SimulatorProcess("experiments.benchmarks.bills:reply", list(PRICES), latency=Latency(0.02, sigma=0.5),
                          errors=errors) as server:
        return compare(server, calls=1000, timeout=8.0)


def compare(server: Simulator | SimulatorProcess, *, calls: int, timeout: float) -> list[Row]:
    """Run `calls` different requests, and hold the bills against the server's log."""
    with tempfile.TemporaryDirectory() as folder, prices(Path(folder) / "prices.json"):
        policy, value = (DirectModel(name, api_base=server.url, api_key="none", timeout=timeout)
                         for name in ("openai/policy-sim", "hosted_vllm/value-sim"))
        program, journal = Asking(policy, value, calls), Path(folder) / "journal.jsonl"
        tasks = [program.environment.task(str(i)) for i in range(calls // EACH)]
        results = run_sync(run_tasks(program, tasks, journal=journal, share_judgements=True, in_flight=32,
                                     backoff=0.01))
        journaled = [usage for bills in read_journal(journal).spent().values() for usage in bills.values()]
    if failed := [result.error for result in results if result.error]:
        raise RuntimeError(f"{len(failed)} tasks failed; the first: {failed[0]}")
    [bill] = total(bills_of(results))
    journal_tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in journaled)
    return [*against_log(results, bill, server.log()),
            equal("calls answered for nothing, of those asked twice", bill.cached_calls, program.asked - calls, "calls",
                  "asked for again"),
            equal("tokens, bills against the journal", bill.prompt_tokens + bill.completion_tokens, journal_tokens,
                  "tokens", "journaled")]


def against_log(results: Sequence[TaskResult], bill: Bill, log: Sequence[dict[str, Any]]) -> list[Row]:
    """Received, refused and lost requests, each exactly."""
    whole = [row for row in log if row["status"] == 200 and row["failure"] is None]
    refused = [row for row in log if row["failure"] in ("429", "500")]
    lost = [row for row in log if row["failure"] in ("cut", "timeout")]
    if len(whole) + len(refused) + len(lost) != len(log):
        raise RuntimeError("the server's log holds requests of another kind")
    bounds = [bound(row) for row in lost]
    kinds = ("prompt_tokens", "cached_tokens", "completion_tokens")
    paid = sum(cost(row["model"], *(row[name] for name in kinds)) for row in whole)
    rows = [equal("calls received", bill.calls, len(whole), "calls"),
            *(equal(f"{name.replace('_', ' ')} received", getattr(bill, name), sum(row[name] for row in whole),
                    "tokens") for name in kinds),
            equal("dollars received", bill.dollars or 0.0, paid, "dollars", tolerance=1e-9),
            equal("requests refused", bill.failed_calls - bill.possibly_paid_calls, len(refused), "calls"),
            equal("requests possibly paid", bill.possibly_paid_calls, len(lost), "calls"),
            equal("tokens possibly paid, at most", bill.possibly_paid_tokens, sum(tokens for tokens, _ in bounds),
                  "tokens", "by the bounds of the requests in the server's log"),
            equal("dollars possibly paid, at most", bill.possibly_paid_dollars or 0.0, sum(d for _, d in bounds),
                  "dollars", "by the bounds of the requests in the server's log", tolerance=1e-9)]
    worked = sum(row["prompt_tokens"] + row["completion_tokens"] for row in lost)
    by_task = sum(row.calls for row in bills_of(results, per_task=True))
    return [*rows, equal("calls, sum of the tasks", by_task, len(whole), "calls"),
            Row("the server's work on lost replies", worked, "tokens", "within what is possibly paid",
                worked <= bill.possibly_paid_tokens, f"{len(lost)} lost of {len(log)} requests")]


def equal(name: str, ours: float, theirs: float, unit: str, whose: str = "in the server's log",
          tolerance: float = 0) -> Row:
    """A row that holds where two counts differ by `tolerance` at most."""
    return at_most(f"{name}: difference", abs(ours - theirs), tolerance, unit,
                   f"{ours:.10g} on the bills, {theirs:.10g} {whose}")


def cost(model: str, prompt: int, cached: int, completion: int) -> float:
    """Dollars, by the table above."""
    price = PRICES[model]
    return ((prompt - cached) * price["prompt"] + cached * price["cached_prompt"] + completion * price["completion"]
            ) / 1e6


def bound(row: dict[str, Any]) -> tuple[int, float]:
    """At most how many tokens and dollars a request of the server's log could cost."""
    prompt = Request(messages_of(row["model"], 0), seeds=(0,)).prompt_tokens_bound
    completion = row["n"] * MAX_TOKENS[row["model"]]
    return prompt + completion, cost(row["model"], prompt, 0, completion)


@contextmanager
def prices(file: Path) -> Iterator[None]:
    """The price file of this benchmark, as a user would name it."""
    file.write_text(json.dumps(PRICES))
    before = os.environ.get("STL_PRICES")
    os.environ["STL_PRICES"] = str(file)
    try:
        yield
    finally:
        del os.environ["STL_PRICES"]
        if before is not None:
            os.environ["STL_PRICES"] = before


BENCHMARKS: dict[str, Callable[[], Sequence[Row]]] = {"ledger": ledger}

if __name__ == "__main__":
    sys.exit(main(BENCHMARKS))
