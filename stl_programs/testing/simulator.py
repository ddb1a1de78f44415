"""A fake OpenAI-compatible server that stands where a language model would have to be downloaded.

Replies come from a Python function, so nothing here says how good a model is, and a token is a whitespace-separated
word; or from a model of this process, with its tokens, seeds, log-probabilities and adapters. What it imitates is the
traffic: latency, a bounded number of requests at once, a prefix cache, and requests that fail. All of it is a function
of the request and of seeds, so that a run repeats. It binds to loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from typing import Any

from aiohttp import web

from stl_programs.children import environment_of_child
from stl_programs.errors import ModelError
from stl_programs.models import load
from stl_programs.testing.players import Answers, ModelPlayer, Player, Script
from stl_programs.testing.service import Service
from stl_programs.testing.traffic import Errors, Latency

__all__ = ["Errors", "Latency", "Simulator", "SimulatorProcess"]

class Simulator:
    """Serves `reply`, or a model, under the names `models` from a thread of this process; for tests, with closures.

    Args:
        reply: (messages, model, seed) -> a text, or `Said`, which also has thoughts (sent as reasoning_content) and a
            finish reason; draw i of a request with n uses seed + i.
        models: names to serve; for a model that is played, by default its own without the provider.
        model: in place of `reply`, a model of this process to play, like "embedded/game24" or "local/DIR".
        capacity: requests worked on at once, the others wait in order of arrival; None for any number.
        cache_blocks: blocks of 16 tokens that the prefix cache holds over all models.

    Example:
        >>> with Simulator(game24_script, ["tiny"]) as server:
        ...     lm = dspy.LM("hosted_vllm/tiny", api_base=server.url)
    """

    def __init__(self, reply: Answers | None = None, models: Sequence[str] = (), *, model: str | None = None,
                 latency: Latency | None = None, capacity: int | None = None, errors: Errors | None = None,
                 cache_blocks: int = 65_536, port: int = 0):
        self.service = Service(_player(reply, model), _names(models, model), latency or Latency(), capacity,
                               errors or Errors(), cache_blocks, True)
        self.port = port
        self.url = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Simulator:
        ready: Future[tuple[int, Callable[[], object]]] = Future()

        async def run() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            try:
                runner, port = await _listen(self.service, self.port)
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
        models, model, latency, capacity, errors, cache_blocks: as for Simulator.
        environment: further environment variables of the process; of ours it gets those of `environment_of_child`.

    Raises ModelError where the process does not start; it says why on stderr.
    """

    def __init__(self, reply: str | None = None, models: Sequence[str] = (), *, model: str | None = None,
                 latency: Latency | None = None, capacity: int | None = None, errors: Errors | None = None,
                 cache_blocks: int = 65_536, port: int = 0, environment: Mapping[str, str] | None = None):
        self._environment = dict(environment or {})
        self._command = [sys.executable, "-c", "from stl_programs.testing.simulator import main; main()",
                         "--until-stdin-closes",
                         *(["--reply", reply] if reply else []), *(["--plays", model] if model else []),
                         "--port", str(port), "--cache-blocks", str(cache_blocks),
                         *(part for name in models for part in ("--model", name)),
                         *(["--capacity", str(capacity)] if capacity is not None else []),
                         *_flags("latency", latency or Latency()), *_flags("errors", errors or Errors())]
        self.url = ""

    def __enter__(self) -> SimulatorProcess:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=environment_of_child({"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, self._environment))
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


def _player(reply: Answers | None, model: str | None) -> Player:
    if (reply is None) == (model is None):
        raise ValueError(f"reply={reply!r}, model={model!r}: the simulator answers by one of them")
    return Script(reply) if reply is not None else ModelPlayer(load(model))


def _names(models: Sequence[str], model: str | None) -> list[str]:
    if not models and model is None:
        raise ValueError("models=(): name what the simulator serves")
    return list(models) or [Path(str(model).partition("/")[2]).name]


def _flags(prefix: str, record: Latency | Errors) -> list[str]:
    values = {f"--{prefix}-{field.name.replace('_', '-')}": getattr(record, field.name) for field in fields(record)}
    return [f"{flag}={','.join(value) if isinstance(value, tuple) else value}" for flag, value in values.items()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server on 127.0.0.1. Prints its URL.")
    parser.add_argument("--reply", help="package.module:function")
    parser.add_argument("--plays", help="in its place a model of this package, like embedded/game24 or local/DIR")
    parser.add_argument("--model", action="append", default=[], help="a name to serve; may be given several times")
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
    reply = None
    if given["reply"]:
        module, _, function = given["reply"].partition(":")
        reply = getattr(importlib.import_module(module), function)
    latency = Latency(**{field.name: given[f"latency_{field.name}"] for field in fields(Latency)})
    errors = Errors(**{field.name: given[f"errors_{field.name}"] for field in fields(Errors)})
    service = Service(_player(reply, given["plays"]), _names(given["model"], given["plays"]), latency,
                      given["capacity"], errors, given["cache_blocks"], keep_requests=False)

    async def run() -> None:
        _, port = await _listen(service, given["port"])
        print(f"http://127.0.0.1:{port}/v1", flush=True)
        await asyncio.Event().wait()

    if given["until_stdin_closes"]:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    asyncio.run(run())
