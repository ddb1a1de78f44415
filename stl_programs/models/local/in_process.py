"""A transformers model in this process: requests of all tasks are drawn together, grouped by adapter."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

import torch

from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.base import FREE, Messages, Prices, Reply, Request
from stl_programs.models.formats import FORMATS, brought_format
from stl_programs.models.local.alone import answer_alone
from stl_programs.models.local.decoding import Ask, Batch
from stl_programs.models.local.merging import Adapter, load_adapter
from stl_programs.models.local.model_directory import ModelDirectory
from stl_programs.models.local.reading import Reading
from stl_programs.models.local.weights import one_line

MAX_ROWS = 256
"""Most draws in step."""
MAX_BYTES = 2**30
"""Most memory for keys and values; a single request may need more."""
REFILL = 0.25
"""Free part of the batch from which on waiting requests join it: a pass for a few prompts costs as much as a step."""
QUIET = 3
"""An idle model begins when the askers' event loop went round so often without another request."""
REST_SECONDS = 0.2
"""A fork waits at most this long for a worker that has just answered."""
GATHER_SECONDS = 0.02
"""An idle model begins at the latest when its first request is so old and the event loop comes round."""


_models: WeakSet[InProcessModel] = WeakSet()
"""All of this process, to be told of a fork."""


@dataclass(eq=False)
class _Asked:
    """A request, what is drawn for it, and who waits."""

    request: Request
    ask: Ask
    adapter: Adapter | None
    future: asyncio.Future[Reply]
    loop: asyncio.AbstractEventLoop


class InProcessModel:
    """A model directory served by one worker thread.

    `directory` holds config, safetensors and a tokenizer with a chat template; `stl_programs.json` beside them may name
    the prompt format that the model was made for ("compact"); without it, "lookahead". `threads`: of torch, while it
    draws.
    """

    endpoint: str | None = None

    def __init__(self, name: str, directory: Path, threads: int = 1):
        self.name, self.directory, self.threads = name, directory, threads
        self.prompt_format = FORMATS[brought_format(directory) or "lookahead"]()
        self._files = ModelDirectory(name, directory)
        self._adapters: dict[str, Adapter] = {}
        self._arrived: list[_Asked] = []
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self._gathered = self._closed = self._working = self._torn = False
        _models.add(self)

    def prices(self) -> Prices:
        return FREE

    def weights(self) -> Path:
        return self.directory

    def check(self, max_tokens: int = 0) -> None:
        self._files.model()

    def check_reads(self, messages: Messages) -> None:
        """Raises OutOfRange for messages that the vocabulary lacks a part of, ModelError where they do not fit."""
        self._files.encode(messages)

    def load_adapter(self, name: str, path: Path) -> None:
        if name in self._adapters:
            raise AdapterError(f"{name} is loaded already; give new weights a new version")
        self._adapters[name] = load_adapter(name, path, self.directory)

    def unload_adapter(self, name: str) -> None:
        if name not in self._adapters:
            raise AdapterError(f"{name} is not loaded; {self.name} has {', '.join(self._adapters) or 'no adapter'}")
        self._files.forget(self._adapters.pop(name))

    async def complete(self, request: Request) -> Reply:
        """Log-probabilities have one entry per completion token: the end token is among them, and a stop text's."""
        adapter, options = request.adapter, request.options
        if options.schema is not None:
            raise ModelError(f"{self.name} runs in this process and cannot be held to a schema; ask without one, or "
                             "take a model that can: hosted_vllm/NAME, openai/NAME")
        if adapter is not None and adapter not in self._adapters:
            raise AdapterError(f"{adapter} is not loaded in {self.name}; register it, or ask the base")
        loop = asyncio.get_running_loop()
        ask = Ask([], [seed % 2**64 for seed in request.seeds], request.temperature, request.max_tokens,
                  options.logprobs)
        asked = _Asked(request, ask, self._adapters[adapter] if adapter else None, loop.create_future(), loop)
        with self._wake:
            if self._closed:
                raise ModelError(f"{self.name} is closed")
            if self._torn:
                raise ModelError(
                    f"{self.name} was at work when this process was forked from another, and cannot be asked here; "
                    "start processes by multiprocessing's 'spawn', or fork while no request is open")
            self._arrived.append(asked)
            if self._worker is None:
                self._worker = threading.Thread(target=self._serve, name=self.name, daemon=True)
                self._worker.start()
                atexit.register(self.close)  # a thread inside torch must not outlive the interpreter
        loop.call_soon(self._gather, loop, 0, 0, loop.time() + GATHER_SECONDS)
        return await asked.future

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int, until: float) -> None:
        """Wake an idle worker once the tasks that are ready to ask have asked."""
        count = len(self._arrived)
        quiet = quiet + 1 if count <= seen else 0
        if quiet < QUIET and loop.time() < until:
            loop.call_soon(self._gather, loop, count, quiet, until)
            return
        with self._wake:
            self._gathered = True
            self._wake.notify()

    def close(self) -> None:
        """Stop after the step in hand; requests without an answer fail."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._worker is not None:
            self._worker.join()

    def rest(self) -> None:
        """Before a fork: a worker that has just answered gets a moment to lie down."""
        ends = time.monotonic() + REST_SECONDS
        while self._working and time.monotonic() < ends:
            time.sleep(0.001)

    def forked(self) -> None:
        """In a child process, where the worker does not run: the next request starts another."""
        self._torn = self._working or self._files.forked()
        self._wake, self._worker = threading.Condition(), None
        self._arrived, self._gathered, self._working = [], False, False
        atexit.unregister(self.close)

    # The worker thread.

    def _serve(self) -> None:
        torch.set_num_threads(self.threads)
        waiting: list[_Asked] = []
        while True:
            waiting += self._arrivals(idle=not waiting)
            if self._closed:
                break
            if waiting:
                self._turn(waiting)
        _hand_over([(asked, ModelError(f"{self.name} was closed before it answered")) for asked in waiting])

    def _arrivals(self, idle: bool) -> list[_Asked]:
        """Requests that have come, their prompts as tokens. An idle model waits for the first, and for its company."""
        with self._wake:
            while idle and not (self._arrived and self._gathered) and not self._closed:
                self._working = False
                self._wake.wait()
            self._working = True
            arrived, self._arrived, self._gathered = self._arrived, [], False
        readable = []
        for asked in arrived:
            try:
                self._read(asked)
                readable.append(asked)
            except Exception as error:  # a worker thread must hand every failure to its asker
                _hand_over([(asked, _failure(self.name, error))])
        return readable

    def _turn(self, waiting: list[_Asked]) -> None:
        """Answer all requests under the adapter of the first, and newcomers while nobody else waits."""
        adapter = waiting[0].adapter
        turn, flying = [asked for asked in waiting if asked.adapter is adapter], dict[Ask, _Asked]()
        waiting[:] = [asked for asked in waiting if asked.adapter is not adapter]
        try:
            model, ends = self._files.model(adapter), self._files.ends
            batch = Batch(model, ends)
            while (turn or batch) and not self._closed:
                if turn and self._reads(turn[0]) == "alone":
                    asked = turn.pop(0)
                    if not asked.future.cancelled():
                        flying[asked.ask] = asked
                        self._answer(flying, answer_alone(
                            model, ends, asked.ask, self._files.draws_together, lambda: self._closed))
                elif turn and (group := self._group(turn, batch)):
                    flying |= {asked.ask: asked for asked in group}
                    self._answer(flying, batch.admit([asked.ask for asked in group]))
                if batch:
                    self._answer(flying, batch.step())
                waiting += self._arrivals(idle=False)
                if all(asked.adapter is adapter for asked in waiting):
                    turn += waiting
                    waiting.clear()
        except Exception as error:
            _hand_over([(asked, _failure(self.name, error)) for asked in (*turn, *flying.values())])
            return
        waiting += [*turn, *flying.values()]
        if adapter is not None and self._adapters.get(adapter.name) is not adapter:
            self._files.forget(adapter)

    def _group(self, turn: list[_Asked], batch: Batch) -> list[_Asked]:
        """Take those from the front of `turn` that join the batch now."""
        live, count, rows = len(batch), 0, 0
        longest = max(len(asked.ask.prompt) + asked.ask.limit for asked in turn)
        most = min(MAX_ROWS, MAX_BYTES // (longest * self._files.token_bytes))
        most = most if self._reads(turn[0]) == "together" else 0
        while count < len(turn) and self._reads(turn[count]) != "alone" and (
                live + rows + len(turn[count].ask.seeds) <= most or live + rows == 0):
            rows += len(turn[count].ask.seeds)
            count += 1
        if live and rows < REFILL * live:
            return []
        group, turn[:count] = turn[:count], []
        return [asked for asked in group if not asked.future.cancelled()]

    def _reads(self, asked: _Asked) -> Reading:
        return self._files.reads(len(asked.ask.prompt) + asked.ask.limit)

    def _answer(self, flying: dict[Ask, _Asked], ended: Sequence[Ask]) -> None:
        outcomes = list[tuple[_Asked, Reply | Exception]]()
        for ask in ended:
            asked = flying.pop(ask)
            texts = [_until(self._files.decode(draw.tokens), asked.request.options.stop) for draw in ask.draws]
            logprobs = [[(self._files.decode([token], special=True), logprob)
                         for token, logprob in zip(draw.tokens, draw.logprobs, strict=True)]
                        for draw in ask.draws] if ask.logprobs else None
            outcomes.append((asked, Reply(
                [*texts], len(ask.prompt), sum(len(draw.tokens) for draw in ask.draws), seconds=ask.seconds,
                logprobs=logprobs, finish_reasons=[draw.finish_reason for draw in ask.draws])))
        _hand_over(outcomes)

    def _read(self, asked: _Asked) -> None:
        """Its prompt as tokens, and how far its draws may go."""
        ask = asked.ask
        ask.prompt = self._files.encode(asked.request.messages)
        ask.limit = min(ask.limit, self._files.context - len(ask.prompt))
        if self._files.rules.settings:
            ask.rules = self._files.rules.processors(len(ask.prompt), ask.limit, ask.temperature)
        if stop := tuple(filter(None, asked.request.options.stop)):
            tail = max(len(word.encode()) for word in stop) + 8  # tokens that may touch it: each holds a byte or more
            ask.ended = lambda tokens: any(word in self._files.decode(tokens[-tail:]) for word in stop)


def _until(text: str, stop: Sequence[str]) -> str:
    return text[:min((text.index(word) for word in stop if word and word in text), default=len(text))]


def _failure(name: str, error: Exception) -> Exception:
    return error if isinstance(error, StlError) else ModelError(f"{name} failed: {one_line(error)}")


def _hand_over(outcomes: Sequence[tuple[_Asked, Reply | Exception]]) -> None:
    """Settle requests in their event loops, each of which is woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Asked, Reply | Exception]]] = defaultdict(list)
    for asked, outcome in outcomes:
        loops[asked.loop].append((asked, outcome))
    for loop, settled in loops.items():
        with contextlib.suppress(RuntimeError):  # the asker's loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, settled)


def _settle(outcomes: Sequence[tuple[_Asked, Reply | Exception]]) -> None:
    for asked, outcome in outcomes:
        if asked.future.done():
            continue
        if isinstance(outcome, Exception):
            asked.future.set_exception(outcome)
        else:
            asked.future.set_result(outcome)


def _before_fork() -> None:
    for model in list(_models):
        model.rest()


def _forked() -> None:
    torch.set_num_threads(1)  # the threads of the process before do not run here, and waiting for them has no end
    for model in list(_models):
        model.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_forked)
