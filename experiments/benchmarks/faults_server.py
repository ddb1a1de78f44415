"""A raw server for fault benchmarks: good chat completions, mutated in bytes, in fields, or in how they are sent."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from typing import Any, Self

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "5",
    "\ud83d",
    [],
    [1],
    {},
    "x" * 5000,
    [[[[]]]],
    "<think>",
    "\x1b[31m",
    2**63,
)
TEXTS = (
    "[[ ## rationale ## ]]\nr{n}\n\n[[ ## score ## ]]\n{n}\n\n[[ ## completed ## ]]",
    "<think>[[ ## score ## ]]\n9</think>[[ ## rationale ## ]]\nr\n\n[[ ## score ## ]]\n{n}\n\n[[ ## completed ## ]]",
    "[[ ## rationale ## ]]\nr\n\n[[ ## score ## ]]\n**{n}** out of 10\n\n[[ ## completed ## ]]",
    "[[ ## rationale ## ]]\nr\n\n[[ ## score ## ]]\n{n} or 4\n\n[[ ## completed ## ]]",
    "I do not know",
    "",
)
WORDS = (400, 401, 402, 404, 408, 422, 429, 500, 502, 503, 529)
"""Statuses of refusals."""


def good(rng: random.Random, n: int) -> dict[str, Any]:
    """A chat completion of `n` draws, each of a kind that servers send."""
    texts = [rng.choice(TEXTS if rng.random() < 0.3 else TEXTS[:1]).format(n=rng.randint(1, 10)) for _ in range(n)]
    return {
        "id": "c",
        "object": "chat.completion",
        "choices": [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 90, "completion_tokens": 12 * n, "total_tokens": 99},
    }


def fields_changed(rng: random.Random, body: Any) -> Any:
    """`body` with one value, somewhere, made odd, dropped, or named otherwise."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(body)
    holder, key = rng.choice(places)
    way = rng.randrange(4)
    if way == 0 and isinstance(holder, dict):
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    else:
        holder[key] = rng.choice(ODD)
    return body


def bytes_changed(rng: random.Random, data: bytes) -> bytes:
    """`data` with bits flipped, bytes cut, doubled, swapped or put in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not found:
            break
        at, way = rng.randrange(len(found)), rng.randrange(5)
        if way == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del found[at : at + rng.choice((1, 4, len(found)))]
        elif way == 2:
            found[at:at] = found[at : at + 40]
        elif way == 3:
            other = rng.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        else:
            found[at:at] = rng.choice((b"[" * 3000, b"\x00", b"\xff\xfe", b"\\ud83d", b"9" * 5000, b"</think>", b'"'))
    return bytes(found)


def refusal(rng: random.Random) -> tuple[int, bytes]:
    said = rng.choice(
        ("slow down", "bad\nkey", "n must be 1", "seed: Extra inputs are not permitted", "<html><h1>Bad</h1>")
    )
    body: Any = rng.choice(
        ({"error": {"message": said}}, [{"error": {"code": 429, "message": said}}], {"detail": said}, said)
    )
    return rng.choice(WORDS), body.encode() if isinstance(body, str) else json.dumps(body).encode()


def mutated(rng: random.Random, n: int) -> tuple[int, bytes]:
    """Status and body of one reply: a third as it should be in fields, a third in bytes, some refused."""
    way = rng.random()
    if way < 0.1:
        return refusal(rng)
    if way < 0.15:
        return 200, refusal(rng)[1]
    body = good(rng, rng.choice((n, n, n, 1, n + 3)))
    if way < 0.55:
        return 200, json.dumps(fields_changed(rng, body)).encode()
    data = json.dumps(body).encode()
    return 200, bytes_changed(rng, data) if way < 0.9 else data


class FaultyServer:
    """Answers every POST with reply(rng, n) from a thread of its own. `requests` is its own count.

    `rude`: a share of connections that are closed, held or sent as no HTTP at all.
    """

    def __init__(
        self,
        reply: Callable[[random.Random, int], tuple[int, bytes]],
        seed: int = 0,
        rude: float = 0.0,
        delay: float = 0.0,
    ):
        self.reply, self.rng, self.rude, self.delay = reply, random.Random(seed), rude, delay
        self.requests = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await self._over.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                request = await reader.readexactly(length)
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                elif not await self._one(json.loads(request), writer):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        self.requests += 1
        status, body = self.reply(self.rng, request.get("n", 1))
        if self.delay:
            await asyncio.sleep(self.rng.uniform(0, self.delay))
        if self.rng.random() < self.rude:
            writer.write(
                self.rng.choice(
                    (
                        b"",
                        b"\x16\x03\x01",
                        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{",
                        b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
                    )
                )
            )
            return False
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return True
