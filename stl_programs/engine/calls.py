"""One model call: looked up, coalesced, reserved, bounded, sent, retried and journaled."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time

import dspy

from stl_programs.engine.budget import Cost, Ledger, cost_of
from stl_programs.engine.context import Context, Work, together
from stl_programs.engine.recording import Recorded, lost
from stl_programs.engine.rows import LARGEST, Caller
from stl_programs.errors import (
    AskOtherwise,
    BudgetSpent,
    JournalError,
    ModelError,
    OutOfRange,
    StlError,
    TransientError,
)
from stl_programs.models.base import PLAIN, WAYS, Model, Reply, Request, compact, joined
from stl_programs.models.echoes import without_echoes
from stl_programs.records import Usage, well_formed

LONGEST_WAIT = 60.0
"""Seconds between two attempts, at most."""


async def complete(current: Context, model: Model, request: Request) -> Reply:
    """One draw per seed. Draws of one prompt travel together; what a provider leaves out is asked for again.

    Tokens and seconds of the reply are of all that was asked; a reply that was recorded has those that it had then.

    Raises BudgetSpent where a budget does not cover it, OutOfRange for a prompt that the model cannot read, ModelError
    when it keeps failing, StlError for a search that has ended.

    Example:
        >>> reply = await complete(context(), model, Request(messages, seeds=(0, 1), role="value", about=state.key))
    """
    if current.closed:
        raise StlError(f"the search of {current.task!r} has ended, and its bill is final: it makes no {request.role} "
                       "call")
    ledgers = [current.run.ledger, current.ledger]
    if own := current.run.module_ledger(request.module, request.role, model.name, request.budget):
        ledgers.append(own)
    parts, draws, rest = list[Reply](), 0, request
    while True:
        part = await _Call(current, model, rest, ledgers).answer()
        parts.append(part)
        draws += len(part.texts)
        if draws >= len(request.seeds):
            return joined(parts, len(request.seeds))
        if draws == 1:  # it gives one at a time
            parts += await together(*(_Call(current, model, request.replace(seeds=(seed,)), ledgers).answer()
                                      for seed in request.seeds[1:]))
            return joined(parts, len(request.seeds))
        rest = request.replace(seeds=request.seeds[draws:])


def key_of(model: str, request: Request, mark: str = "") -> str:
    """What journals know a request by: all that changes its reply. An adapter's name stands for the model's; `mark`
    tells models of one name apart."""
    options = request.options
    asked = [request.seeds, request.temperature, request.max_tokens]
    if options != PLAIN:
        asked.append({"stop": options.stop, "logprobs": options.logprobs, "schema": options.schema})
    text = f"[{compact(request.adapter or model)},{request.prompt},{compact(asked)[1:]}{mark}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()


class _Call:
    """One request and its attempts."""

    def __init__(self, current: Context, model: Model, request: Request, ledgers: list[Ledger]):
        self.current, self.model, self.request, self.ledgers = current, model, request, ledgers
        self.caller = Caller(current.seed, current.task, request.role, model.name)
        self.key = key_of(model.name, request, current.run.mark(model))

    async def answer(self) -> Reply:
        """The reply: from a journal, from the same request in flight, or from the model."""
        run = self.current.run
        while True:
            if (own := run.own.replies.get(self.key)) is not None:
                return self._again(own)
            if (other := run.recorded.replies.get(self.key)) is not None:
                self._bill(Usage(cached_calls=1))
                return other.reply
            if run.offline:
                raise JournalError(f"offline: a {self.request.role} call of {self.current.task!r} to {self.model.name} "
                                   "is in no journal; run with the model, or replay with the settings that were "
                                   "recorded")
            flying = run.flying.get(self.key)
            work = flying or self._begin()
            try:
                reply = await work.wait()
            except BudgetSpent:
                if work.owner is self.current:
                    raise
                continue  # another trial's budget did not cover it: sent again, on this one's
            if flying:
                self._bill(Usage(cached_calls=1))
            return reply

    def _begin(self) -> Work[Reply]:
        run = self.current.run
        work = run.flying[self.key] = Work(self.current, self._send())
        work.task.add_done_callback(lambda _: run.flying.pop(self.key, None))
        return work

    def _again(self, own: Recorded) -> Reply:
        """A reply that this run's journal holds. Whoever paid for it was billed; everybody else gets it for nothing."""
        run, current = self.current.run, self.current
        paid_here = own.caller is not None and own.caller[:2] == (current.seed, current.task)
        if self.key in run.asked or not paid_here:
            self._bill(Usage(cached_calls=1))
        elif self.request.about is not None:
            current.costs.setdefault(self.request.about, Usage()).add(own.usage)
        run.asked.add(self.key)
        return own.reply

    def _bill(self, usage: Usage) -> None:
        self.current.bill(self.request.role, usage, self.request.about, self.model.name)

    def _tell_dspy(self, used: Usage) -> None:
        """Tokens that were paid, to dspy's usage tracker where a user set one up; its own LMs tell them themselves."""
        tracker = dspy.settings.usage_tracker
        if tracker is not None and used.calls and not getattr(self.model, "through_dspy", False):
            tracker.add_usage(self.model.name, {
                "prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens,
                "total_tokens": used.prompt_tokens + used.completion_tokens})

    async def _send(self) -> Reply:
        for attempt in range(self.current.run.retries + 1):
            try:
                return await self._asked_otherwise()
            except TransientError as error:
                last = error
            if attempt < self.current.run.retries:
                await asyncio.sleep(self._pause(attempt, last.retry_after))
        raise ModelError(f"{last} (sent {self.current.run.retries + 1} times)")

    async def _asked_otherwise(self) -> Reply:
        """One attempt; where the server refuses how it was asked, again in the ways that the model then knows."""
        for _ in range(WAYS):
            try:
                return await self._attempt()
            except AskOtherwise:
                pass
        return await self._attempt()

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Exponential, with jitter; at least what the server asked for. None where another server is up."""
        if retry_after == 0.0:
            return 0.0
        jitter = self.current.random("back-off", self.key, attempt).uniform(0.5, 1.0)
        return min(max(self.current.run.backoff * 2 ** attempt * jitter, retry_after or 0.0), LONGEST_WAIT)

    async def _attempt(self) -> Reply:
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
                    reply = without_echoes(await self.model.complete(self.request))
                except ModelError as error:
                    maybe_paid = error.maybe_paid
                    if not maybe_paid:
                        used = Usage(failed_calls=1)
                    if isinstance(error, OutOfRange) and not remote:
                        used = Usage()  # it was read, and no more
                    if remote and run.journal:
                        run.journal.failed(self.key, str(error), maybe_paid, self.caller, bound)
                    raise
                reply = self._believed(reply, bound)
                seconds = time.perf_counter() - started if reply.seconds is None else reply.seconds
            _check_counts(self.model, reply, seconds)
            paid = Recorded(reply, seconds, self._dollars(reply), self.caller)
            used = paid.usage
            if run.journal:
                run.journal.reply(self.key, paid, here=not remote)
                run.own.replies[self.key] = paid
                run.asked.add(self.key)
            return reply
        finally:
            if used != Usage():
                self._bill(used)
                self._tell_dspy(used)
            run.bank.settle(self.ledgers, bound, cost_of(used))

    def _believed(self, reply: Reply, bound: Cost) -> Reply:
        """`reply`, of which no budget is overspent: tokens that cannot be are bounds, and at most what was reserved.

        Raises ModelError for a reply without a draw.
        """
        if not reply.texts:
            raise ModelError(f"{self.model.name} returned no choices", maybe_paid=True)
        prompt, completion = self._tokens_bound()
        if not all(text is None or text.isascii() for text in reply.texts):
            reply = dataclasses.replace(reply, texts=[text and well_formed(text) for text in reply.texts])
        counted = (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)
        if all(type(count) is int and count >= 0 for count in counted) and (
                counted[0] <= prompt and counted[1] <= completion and counted[2] <= counted[0]):
            return reply
        self.current.note(f"{self.request.role} replies whose tokens cannot be, and were taken for bounds")
        one, two, cached = (count if type(count) is int and 0 <= count <= most else most
                            for count, most in zip(counted, (prompt, completion, 0), strict=True))
        return dataclasses.replace(reply, prompt_tokens=one, completion_tokens=two, cached_tokens=cached, bounds=True)

    def _tokens_bound(self) -> tuple[int, int]:
        """The most tokens of prompt and draws."""
        return self.request.prompt_tokens_bound, len(self.request.seeds) * self.request.max_tokens

    def _bound(self) -> Cost:
        prompt, completion = self._tokens_bound()
        prices = self.model.prices()
        return Cost(1, prompt + completion, None if prices is None else max(
            prices.cost(prompt, cached, completion) for cached in (0, prompt)))

    def _dollars(self, reply: Reply) -> float | None:
        prices = self.model.prices()
        return None if prices is None else prices.cost(reply.prompt_tokens, reply.cached_tokens,
                                                       reply.completion_tokens)


def _check_counts(model: Model, reply: Reply, seconds: float) -> None:
    """Raises ModelError where a model says of its reply what does not belong together."""
    if not 0 <= seconds <= LARGEST:
        raise ModelError(f"{model.name} says that a reply took {seconds!r} seconds; that is a number from 0 on")
    for name in ("logprobs", "finish_reasons", "thoughts"):
        if (found := getattr(reply, name)) is not None and len(found) != len(reply.texts):
            raise ModelError(f"{model.name} gives {len(found)} {name} for {len(reply.texts)} texts; one for each")
