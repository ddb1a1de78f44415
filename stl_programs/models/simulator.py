"""A fake OpenAI-compatible server that stands where a language model would have to be downloaded.

Replies come from a Python function, so nothing here says how good a model is. What it does imitate is the traffic:
latency, a bounded number of requests at once, a prefix cache, and requests that fail. All of it is a function of the
request and of seeds, so that a run repeats. A token is a whitespace-separated word. It binds to loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from aiohttp import web

from stl_programs.errors import ModelError
from stl_programs.models.traffic import Errors, Latency, PrefixCache, digest

__all__ = ["Errors", "Latency", "Simulator", "SimulatorProcess"]

Reply = Callable[[list[dict[str, Any]], str, int], str]
"""(messages, model, seed) -> text. A function of its arguments alone, so that replies repeat."""

WRONG = "I do not know"
MOST_DRAWS = 1024


class Service:
    """The server's state and routes, for one event loop."""

    def __init__(self, reply: Reply, models: Sequence[str], latency: Latency, capacity: int | None, errors: Errors,
                 cache_blocks: int, keep_requests: bool):
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity={capacity}: at least 1 request at a time, or None for any number")
        self.reply, self.models, self.latency, self.errors = reply, list(models), latency, errors
        self.adapters: set[str] = set()
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
                    texts = [WRONG] * n if failure == "wrong" else [self.reply(messages, model, seed + i)
                                                                    for i in range(n)]
                except Exception as error:  # the function is the user's own; what it raised is what they need to see
                    return _error(500, f"the reply function raised {type(error).__name__}: {error}")
                draws = [_truncated(text, limit) for text in texts]
                seconds = self.latency.of(prompt, seed, len(words) - cached, max(count for _, count, _ in draws))
                if seconds > 0:
                    await asyncio.sleep(seconds)
            finally:
                self.running -= 1
        if failure == "500":
            return _error(500, "the simulator was told to fail here")
        completion = sum(count for _, count, _ in draws)
        row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"] = len(words), cached, completion
        self.served += 1
        self.prompt_tokens += len(words)
        self.cached_tokens += cached
        self.completion_tokens += completion
        if self.keep_requests:
            self.requests.append(body)
        reply = json.dumps({
            "id": key, "object": "chat.completion", "created": 0, "model": model,
            "choices": [{"index": i, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
                        for i, (text, _, reason) in enumerate(draws)],
            "usage": {"prompt_tokens": len(words), "completion_tokens": completion,
                      "total_tokens": len(words) + completion, "prompt_tokens_details": {"cached_tokens": cached}},
        }).encode()
        return web.Response(body=reply[:len(reply) // 2] if failure == "cut" else reply,
                            content_type="application/json")

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [
            {"id": name, "object": "model", "owned_by": "simulator"} for name in self.models]})

    async def load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return _error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.models:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(path).is_dir():
            return _error(404, f"No adapter found for '{path}'")
        self.models.append(name)
        self.adapters.add(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        if name not in self.adapters:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        self.adapters.discard(name)
        self.models.remove(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


class Simulator:
    """Serves `reply` under the names `models` from a thread of this process; for tests, with closures.

    Args:
        reply: (messages, model, seed) -> text; draw i of a request with n uses seed + i.
        capacity: requests worked on at once, the others wait in order of arrival; None for any number.
        cache_blocks: blocks of 16 tokens that the prefix cache holds over all models.

    Example:
        >>> with Simulator(game24_script, ["tiny"]) as server:
        ...     lm = dspy.LM("hosted_vllm/tiny", api_base=server.url)
    """

    def __init__(self, reply: Reply, models: Sequence[str], *, latency: Latency | None = None,
                 capacity: int | None = None, errors: Errors | None = None, cache_blocks: int = 65_536):
        self.service = Service(reply, models, latency or Latency(), capacity, errors or Errors(), cache_blocks, True)
        self.url = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Simulator:
        ready: Future[tuple[int, Callable[[], object]]] = Future()

        async def run() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            try:
                runner, port = await _listen(self.service, 0)
            except OSError as error:
                ready.set_exception(error)
                return
            ready.set_result((port, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()
            await runner.cleanup()

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), name="simulator", daemon=True)
        self._thread.start()
        port, self._stop = ready.result()
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._thread is not None:
            self._thread.join()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies of the chat completions that were served, in the order of their replies."""
        return self.service.requests

    @property
    def prompt_tokens(self) -> int:
        return self.service.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        return self.service.cached_tokens

    @property
    def completion_tokens(self) -> int:
        return self.service.completion_tokens

    def stats(self) -> dict[str, Any]:
        return self.service.stats()

    def log(self) -> list[dict[str, Any]]:
        """One row per chat completion; arrival, start (of its slot) and end are seconds of `time.monotonic`."""
        return list(self.service.log)

    def reset(self) -> None:
        self.service.reset()


class SimulatorProcess:
    """The same in a process of its own, so that client and server do not share a core; it ends with its parent.

    Args:
        reply: "package.module:function".
        models, latency, capacity, errors, cache_blocks: as for Simulator.

    Raises ModelError where the process does not start; it says why on stderr.
    """

    def __init__(self, reply: str, models: Sequence[str], *, latency: Latency | None = None,
                 capacity: int | None = None, errors: Errors | None = None, cache_blocks: int = 65_536, port: int = 0):
        self._command = [sys.executable, "-m", "stl_programs.models.simulator", "--until-stdin-closes",
                         "--reply", reply, "--port", str(port), "--cache-blocks", str(cache_blocks),
                         *(part for name in models for part in ("--model", name)),
                         *(["--capacity", str(capacity)] if capacity is not None else []),
                         *_flags("latency", latency or Latency()), *_flags("errors", errors or Errors())]
        self.url = ""

    def __enter__(self) -> SimulatorProcess:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise ModelError(f"the simulator did not start (exit code {self.process.wait()}): {self._command}")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def stats(self) -> dict[str, Any]:
        return self._ask("GET", "/stats")

    def log(self) -> list[dict[str, Any]]:
        """One row per chat completion; arrival, start (of its slot) and end are seconds of `time.monotonic`."""
        return self._ask("GET", "/log")

    def reset(self) -> None:
        self._ask("POST", "/reset")

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.split(":")[2].partition("/")[0]), timeout=60)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


async def _listen(service: Service, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    return runner, runner.addresses[0][1]


def _answering(answer: Callable[[], Any]) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(answer())

    return handler


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "simulated", "param": None, "code": status}},
                             status=status, headers=headers)


def _truncated(text: str, limit: int | None) -> tuple[str, int, str]:
    """The text up to its `limit`-th word, how many words that is, and the finish reason."""
    count = len(text.split())
    if limit is None or count <= limit:
        return text, count, "stop"
    match = re.match(rf"(?:\s*\S+){{{limit}}}", text)
    return match.group() if match else "", limit, "length"


def _flags(prefix: str, record: Latency | Errors) -> list[str]:
    values = {f"--{prefix}-{field.name.replace('_', '-')}": getattr(record, field.name) for field in fields(record)}
    return [f"{flag}={','.join(value) if isinstance(value, tuple) else value}" for flag, value in values.items()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server on 127.0.0.1. Prints its URL.")
    parser.add_argument("--reply", required=True, help="package.module:function")
    parser.add_argument("--model", action="append", required=True, help="a name to serve; may be given several times")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--capacity", type=int, help="requests worked on at once")
    parser.add_argument("--cache-blocks", type=int, default=65_536, help="blocks of 16 tokens in the prefix cache")
    parser.add_argument("--until-stdin-closes", action="store_true", help="exit when stdin closes")
    for prefix, record in (("latency", Latency()), ("errors", Errors())):
        for field in fields(record):
            default = getattr(record, field.name)
            parser.add_argument(f"--{prefix}-{field.name.replace('_', '-')}", default=default, type=(
                (lambda text: tuple(text.split(","))) if isinstance(default, tuple) else type(default)))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    given = vars(_parser().parse_args(arguments))
    module, _, function = given["reply"].partition(":")
    latency = Latency(**{field.name: given[f"latency_{field.name}"] for field in fields(Latency)})
    errors = Errors(**{field.name: given[f"errors_{field.name}"] for field in fields(Errors)})
    service = Service(getattr(importlib.import_module(module), function), given["model"], latency, given["capacity"],
                      errors, given["cache_blocks"], keep_requests=False)

    async def run() -> None:
        _, port = await _listen(service, given["port"])
        print(f"http://127.0.0.1:{port}/v1", flush=True)
        await asyncio.Event().wait()

    if given["until_stdin_closes"]:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    asyncio.run(run())


if __name__ == "__main__":
    main()
