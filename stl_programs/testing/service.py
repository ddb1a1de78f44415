"""The routes of the simulator: chat completions, models, adapters, and what it counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from aiohttp import web

from stl_programs.errors import AdapterError, ModelError
from stl_programs.testing.players import WRONG, Played, Player
from stl_programs.testing.traffic import Errors, Latency, PrefixCache, digest

MOST_DRAWS = 1024


class Service:
    """The server's state and routes, for one event loop."""

    def __init__(self, player: Player, models: Sequence[str], latency: Latency, capacity: int | None, errors: Errors,
                 cache_blocks: int, keep_requests: bool):
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity={capacity}: at least 1 request at a time, or None for any number")
        self.player, self.models, self.latency, self.errors = player, list(models), latency, errors
        self.adapters: dict[str, str] = {}
        self.cache = PrefixCache(cache_blocks)
        self.keep_requests = keep_requests
        self._slots: AbstractAsyncContextManager[Any] = asyncio.Semaphore(capacity) if capacity else nullcontext()
        self.in_flight = self.running = 0
        self.reset()

    def reset(self) -> None:
        """Forget the log, the counts, the attempts and the prefix cache; loaded adapters stay."""
        self.log: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.attempts: dict[str, int] = {}
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.served = 0
        self.peak_in_flight, self.peak_running = self.in_flight, self.running
        self.cache.clear()

    def stats(self) -> dict[str, Any]:
        names = ("served", "prompt_tokens", "cached_tokens", "completion_tokens", "in_flight", "running",
                 "peak_in_flight", "peak_running")
        return {"requests": len(self.log), **{name: getattr(self, name) for name in names}}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/load_lora_adapter", self.load_adapter)
        app.router.add_post("/v1/unload_lora_adapter", self.unload_adapter)
        app.router.add_get("/v1/models", self.list_models)
        for path, answer in (("/health", dict), ("/stats", self.stats), ("/log", lambda: self.log)):
            app.router.add_get(path, _answering(answer))
        app.router.add_post("/reset", _answering(self.reset))
        return app

    async def chat(self, request: web.Request) -> web.Response:
        """One chat completion, with its row in the log. One whose client has left is finished all the same."""
        data = await request.read()
        row: dict[str, Any] = {"arrival": time.monotonic(), "start": None, "end": None, "status": None, "failure": None,
                               "key": None, "model": None, "n": 0, "prompt_tokens": 0, "cached_tokens": 0,
                               "completion_tokens": 0}
        self.log.append(row)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            response = await self._answer(request, data, row)
            row["status"] = response.status
            return response
        finally:
            row["end"] = time.monotonic()
            self.in_flight -= 1

    async def _answer(self, request: web.Request, data: bytes, row: dict[str, Any]) -> web.Response:
        try:
            body = json.loads(data)
            model, messages, n, seed = body["model"], body["messages"], body.get("n") or 1, body.get("seed") or 0
            limit = body.get("max_completion_tokens") or body.get("max_tokens")
            words = [word for message in messages for word in message["content"].split()]
            if not messages or not 1 <= n <= MOST_DRAWS:
                raise ValueError(f"{len(messages)} messages and n={n}; at least 1 message and n from 1 to {MOST_DRAWS}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _error(400, f"not a chat completion request: {type(error).__name__}: {error}")
        if model not in self.models:
            return _error(404, f"The model `{model}` does not exist.")
        prompt = json.dumps(messages)
        row["model"], row["n"], row["key"] = model, n, (key := digest(prompt, model, seed, n).hex())
        self.attempts[key] = self.attempts.get(key, 0) + 1
        row["failure"] = failure = self.errors.of(key, self.attempts[key])
        if failure == "429":
            return _error(429, "too many requests", {"Retry-After": f"{self.errors.retry_after:g}"})
        if failure == "timeout":
            await asyncio.sleep(self.errors.timeout_seconds)
            if request.transport is not None:
                request.transport.close()
            return _error(408, "held, then closed")
        async with self._slots:
            row["start"] = time.monotonic()
            self.running += 1
            self.peak_running = max(self.peak_running, self.running)
            try:
                cached = self.cache.read(model, words)
                try:
                    played = (_wrong(n, len(words)) if failure == "wrong"
                              else await self.player.draw(body, n, seed, limit))
                except ModelError as error:
                    return _error(400, str(error))
                except Exception as error:  # the function is the user's own; what it raised is what they need to see
                    return _error(500, f"the reply function raised {type(error).__name__}: {error}")
                cached = min(cached, played.prompt_tokens)
                seconds = self.latency.of(prompt, seed, played.prompt_tokens - cached, played.longest)
                left = row["start"] + seconds - time.monotonic()  # our own work is part of the latency
                if left > 0:
                    await asyncio.sleep(left)
            finally:
                self.running -= 1
        if failure == "500":
            return _error(500, "the simulator was told to fail here")
        completion = played.completion_tokens
        row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"] = played.prompt_tokens, cached, completion
        self.served += 1
        self.prompt_tokens += played.prompt_tokens
        self.cached_tokens += cached
        self.completion_tokens += completion
        if self.keep_requests:
            self.requests.append(body)
        reply = json.dumps({
            "id": key, "object": "chat.completion", "created": 0, "model": model,
            "choices": played.choices,
            "usage": {"prompt_tokens": played.prompt_tokens, "completion_tokens": completion,
                      "total_tokens": played.prompt_tokens + completion,
                      "prompt_tokens_details": {"cached_tokens": cached}},
        }).encode()
        return web.Response(body=reply[:len(reply) // 2] if failure == "cut" else reply,
                            content_type="application/json")

    async def list_models(self, request: web.Request) -> web.Response:
        """The base models, and the adapters with the directories that they came from, as vLLM lists them."""
        root, adapters = self.player.root(), self.adapters
        return web.json_response({"object": "list", "data": [
            {"id": name, "object": "model", "owned_by": "simulator", "root": adapters.get(name, root or name),
             "parent": self.models[0] if name in adapters else None} for name in self.models]})

    async def load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return _error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.models:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(path).is_dir():
            return _error(404, f"No adapter found for '{path}'")
        try:
            await asyncio.to_thread(self.player.load_adapter, name, Path(path))
        except AdapterError as error:
            return _error(400, str(error))
        self.models.append(name)
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        if name not in self.adapters:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        self.models.remove(name)
        await asyncio.to_thread(self.player.unload_adapter, name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


def _answering(answer: Callable[[], Any]) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(answer())

    return handler


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "simulated", "param": None, "code": status}},
                             status=status, headers=headers)


def _wrong(n: int, prompt_tokens: int) -> Played:
    count = len(WRONG.split())
    return Played([{"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": WRONG}}
                   for i in range(n)], prompt_tokens, n * count, count)
