"""One model call: looked up, coalesced, reserved, bounded, sent, retried and journaled."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from stl_programs.engine.budget import Budget, Cost, Ledger, cost_of
from stl_programs.engine.context import Context, Work
from stl_programs.engine.journal import Caller, Recorded, lost
from stl_programs.errors import BudgetSpent, JournalError, ModelError, OutOfRange, StlError, TransientError
from stl_programs.models.base import Completions, Messages, Model, prompt_tokens_bound
from stl_programs.records import Usage

LONGEST_WAIT = 60.0
"""Seconds between two attempts, at most."""


async def complete(current: Context, role: str, model: Model, messages: Messages, seeds: Sequence[int], *,
                   temperature: float, max_tokens: int, module: object = None, budget: Budget | None = None,
                   about: Any = None) -> list[str | None]:
    """One text per seed. Draws of one prompt travel together; what a provider leaves out is asked for again.

    Args:
        role: whose call it is, in bills ("policy", "value").
        module, budget: the module that calls, and its budget over the run.
        about: the key of the state that the call is about.

    Raises BudgetSpent where a budget does not cover it, OutOfRange for a prompt that the model cannot read, ModelError
    when it keeps failing, StlError for a search that has ended.
    """
    if current.closed:
        raise StlError(f"the search of {current.task!r} has ended, and its bill is final: it makes no {role} call")
    ledgers = [current.run.ledger, current.ledger]
    if own := current.run.module_ledger(module, role, model.name, budget):
        ledgers.append(own)
    texts: list[str | None] = []
    while len(texts) < len(seeds):
        call = _Call(current, role, model, messages, seeds[len(texts):], temperature, max_tokens, ledgers, about)
        reply = await call.answer()
        if not reply.texts:
            raise ModelError(f"{model.name} returned no choices")
        texts += reply.texts
    return texts[:len(seeds)]


_old = complete


async def complete(current, model, request):  # type: ignore
    texts = await _old(current, request.role, model, request.messages, request.seeds, temperature=request.temperature,
                       max_tokens=request.max_tokens, module=request.module, budget=request.budget, about=request.about)
    return Completions(texts, 0, 0)


class _Call:
    """One request and its attempts."""

    def __init__(self, current: Context, role: str, model: Model, messages: Messages, seeds: Sequence[int],
                 temperature: float, max_tokens: int, ledgers: list[Ledger], about: Any):
        self.current, self.role, self.model, self.messages, self.seeds = current, role, model, messages, list(seeds)
        self.temperature, self.max_tokens, self.ledgers, self.about = temperature, max_tokens, ledgers, about
        self.caller = Caller(current.seed, current.task, role, model.name)
        text = json.dumps([model.name, messages, self.seeds, temperature, max_tokens], separators=(",", ":"))
        self.key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    async def answer(self) -> Completions:
        """The reply: from a journal, from the same request in flight, or from the model."""
        run = self.current.run
        while True:
            if (own := run.own.replies.get(self.key)) is not None:
                return self._again(own)
            if (other := run.recorded.replies.get(self.key)) is not None:
                self._bill(Usage(cached_calls=1))
                return other.completions
            if run.offline:
                raise JournalError(f"offline: a {self.role} call of {self.current.task!r} to {self.model.name} is in "
                                   "no journal; run with the model, or replay with the settings that were recorded")
            joined = run.flying.get(self.key)
            work = joined or self._begin()
            try:
                reply = await work.wait()
            except BudgetSpent:
                if work.owner is self.current:
                    raise
                continue  # another trial's budget did not cover it: sent again, on this one's
            if joined:
                self._bill(Usage(cached_calls=1))
            return reply

    def _begin(self) -> Work[Completions]:
        run = self.current.run
        work = run.flying[self.key] = Work(self.current, self._send())
        work.task.add_done_callback(lambda _: run.flying.pop(self.key, None))
        return work

    def _again(self, own: Recorded) -> Completions:
        """A reply that this run's journal holds. Whoever paid for it was billed; everybody else gets it for nothing."""
        run, current = self.current.run, self.current
        paid_here = own.caller is not None and own.caller[:2] == (current.seed, current.task)
        if self.key in run.asked or not paid_here:
            self._bill(Usage(cached_calls=1))
        elif self.about is not None:
            current.costs.setdefault(self.about, Usage()).add(own.usage)
        run.asked.add(self.key)
        return own.completions

    def _bill(self, usage: Usage) -> None:
        self.current.bill(self.role, usage, self.about, self.model.name)

    async def _send(self) -> Completions:
        for attempt in range(self.current.run.retries + 1):
            try:
                return await self._attempt()
            except TransientError as error:
                last = error
            if attempt < self.current.run.retries:
                await asyncio.sleep(self._pause(attempt, last.retry_after))
        raise ModelError(f"{last} (sent {self.current.run.retries + 1} times)")

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Exponential, with jitter; at least what the server asked for. None where another server is up."""
        if retry_after == 0.0:
            return 0.0
        jitter = self.current.random("back-off", self.key, attempt).uniform(0.5, 1.0)
        return min(max(self.current.run.backoff * 2 ** attempt * jitter, retry_after or 0.0), LONGEST_WAIT)

    async def _attempt(self) -> Completions:
        run, bound = self.current.run, self._bound()
        remote = self.model.endpoint is not None
        await run.bank.reserve(self.ledgers, bound, self.current.order)
        used = Usage()
        try:
            async with run.gate.slot(self.model.endpoint, self.current.order):
                if remote and run.journal:
                    run.journal.sent(self.key, self.caller, bound)
                used = lost(bound) if remote else Usage(failed_calls=1)  # until a reply says what it really was
                started = time.perf_counter()
                try:
                    reply = await self.model.complete(self.messages, self.seeds, temperature=self.temperature,
                                                      max_tokens=self.max_tokens)
                except ModelError as error:
                    maybe_paid = isinstance(error, TransientError) and error.maybe_paid
                    if not maybe_paid:
                        used = Usage(failed_calls=1)
                    if isinstance(error, OutOfRange) and not remote:
                        used = Usage()  # it was read, and no more
                    if remote and run.journal:
                        run.journal.failed(self.key, str(error), maybe_paid)
                    raise
                seconds = time.perf_counter() - started if reply.seconds is None else reply.seconds
            paid = Recorded(reply, seconds, self._dollars(reply), self.caller)
            used = paid.usage
            if run.journal:
                run.journal.reply(self.key, paid)
                run.own.replies[self.key] = paid
                run.asked.add(self.key)
            return reply
        finally:
            if used != Usage():
                self._bill(used)
            run.bank.settle(self.ledgers, bound, cost_of(used))

    def _bound(self) -> Cost:
        prompt, completion = prompt_tokens_bound(self.messages), len(self.seeds) * self.max_tokens
        prices = self.model.prices()
        return Cost(1, prompt + completion, None if prices is None else max(
            prices.cost(prompt, cached, completion) for cached in (0, prompt)))

    def _dollars(self, reply: Completions) -> float | None:
        prices = self.model.prices()
        return None if prices is None else prices.cost(reply.prompt_tokens, reply.cached_tokens,
                                                       reply.completion_tokens)
