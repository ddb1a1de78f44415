"""One model call: looked up, coalesced, reserved, bounded, sent, retried and journaled."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from stl_programs.engine.budget import Budget, Cost, Ledger
from stl_programs.engine.context import Context
from stl_programs.engine.journal import Recorded
from stl_programs.errors import JournalError, ModelError, OutOfRange, TransientError
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
    when it keeps failing.
    """
    ledgers = [current.run.ledger, current.ledger]
    if own := current.run.module_ledger(module, role, budget):
        ledgers.append(own)
    texts: list[str | None] = []
    while len(texts) < len(seeds):
        call = _Call(current, role, model, messages, seeds[len(texts):], temperature, max_tokens, ledgers, about)
        reply = await call.answer()
        if not reply.texts:
            raise ModelError(f"{model.name} returned no choices")
        texts += reply.texts
    return texts[:len(seeds)]


class _Call:
    """One request and its attempts."""

    def __init__(self, current: Context, role: str, model: Model, messages: Messages, seeds: Sequence[int],
                 temperature: float, max_tokens: int, ledgers: list[Ledger], about: Any):
        self.current, self.role, self.model, self.messages, self.seeds = current, role, model, messages, list(seeds)
        self.temperature, self.max_tokens, self.ledgers, self.about = temperature, max_tokens, ledgers, about
        text = json.dumps([model.name, messages, self.seeds, temperature, max_tokens], separators=(",", ":"))
        self.key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    async def answer(self) -> Completions:
        """The reply: from a journal, from the same request in flight, or from the model."""
        run = self.current.run
        if (own := run.own.replies.get(self.key)) is not None:
            return self._paid(own)
        if (other := run.recorded.replies.get(self.key)) is not None:
            self.current.bill(self.role, Usage(replayed=1), self.about)
            return other.completions
        if run.offline:
            raise JournalError(f"offline: a {self.role} call of {self.current.task!r} to {self.model.name} is in no "
                               "journal; run with the model, or replay with the settings that were recorded")
        task = run.flying.get(self.key)
        if task is None:
            task = run.flying[self.key] = asyncio.ensure_future(self._send())
            task.add_done_callback(lambda _: run.flying.pop(self.key, None))
            self.current.sending.add(task)
            task.add_done_callback(self.current.sending.discard)
        return await asyncio.shield(task)

    def _paid(self, reply: Recorded) -> Completions:
        """A reply that this run's journal holds: it was paid for, so it counts, once."""
        if self.key in self.current.run.billed:
            self.current.bill(self.role, Usage(replayed=1), self.about)
            return reply.completions
        self.current.run.billed.add(self.key)
        actual = self._bill(reply.completions, reply.seconds)
        for ledger in self.ledgers:
            ledger.book(actual)
        return reply.completions

    async def _send(self) -> Completions:
        for attempt in range(self.current.run.retries + 1):
            try:
                return await self._attempt()
            except TransientError as error:
                last = error
                self.current.bill(self.role, Usage(failed_calls=1))
            if attempt < self.current.run.retries:
                await asyncio.sleep(self._pause(attempt, last.retry_after))
        raise ModelError(f"{last} (sent {self.current.run.retries + 1} times)")

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Exponential, with jitter; at least what the server asked for."""
        jitter = self.current.random("back-off", self.key, attempt).uniform(0.5, 1.0)
        return min(max(self.current.run.backoff * 2 ** attempt * jitter, retry_after or 0.0), LONGEST_WAIT)

    async def _attempt(self) -> Completions:
        run, bound = self.current.run, self._bound()
        await run.bank.reserve(self.ledgers, bound)
        actual = Cost()
        try:
            async with run.gate.slot(self.model.endpoint, self.current.order):
                remote = run.journal if self.model.endpoint is not None else None
                if remote:
                    remote.sent(self.key, self.current.task, self.role, self.model.name, bound)
                actual, started = bound, time.perf_counter()  # until a reply says what it really was
                try:
                    reply = await self.model.complete(self.messages, self.seeds, temperature=self.temperature,
                                                      max_tokens=self.max_tokens)
                except OutOfRange:
                    actual = Cost()
                    raise
                except TransientError as error:
                    actual = bound if error.maybe_paid else Cost(calls=1)
                    if remote:
                        remote.failed(self.key, str(error), error.maybe_paid)
                    raise
                except ModelError as error:
                    actual = Cost(calls=1)
                    if remote:
                        remote.failed(self.key, str(error), False)
                    raise
                seconds = time.perf_counter() - started if reply.seconds is None else reply.seconds
            actual = self._bill(reply, seconds)
            if run.journal:
                run.journal.reply(self.key, reply, seconds)
                run.own.replies[self.key] = Recorded(reply, seconds)
                run.billed.add(self.key)
            return reply
        finally:
            run.bank.settle(self.ledgers, bound, actual)

    def _bound(self) -> Cost:
        prompt, completion = prompt_tokens_bound(self.messages), len(self.seeds) * self.max_tokens
        prices = self.model.prices()
        return Cost(1, prompt + completion, None if prices is None else prices.cost(prompt, 0, completion))

    def _bill(self, reply: Completions, seconds: float) -> Cost:
        prices = self.model.prices()
        dollars = None if prices is None else prices.cost(reply.prompt_tokens, reply.cached_tokens,
                                                          reply.completion_tokens)
        self.current.bill(self.role, Usage(
            calls=1, samples=len(reply.texts), prompt_tokens=reply.prompt_tokens, cached_tokens=reply.cached_tokens,
            completion_tokens=reply.completion_tokens, seconds=seconds, dollars=dollars), self.about)
        return Cost(1, reply.prompt_tokens + reply.completion_tokens, dollars)
