"""A running vLLM server: its health, its counters, and LoRA adapters that come and go while it answers."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from stl_programs.errors import AdapterError, ModelError
from stl_programs.models.artifacts import adapter_hash
from stl_programs.models.served.http import Answer, Listed, NoAnswer, ask
from stl_programs.models.served.pools import Pool
from stl_programs.models.served.urls import address, under, words

ANSWER_SECONDS = 60.0
"""How long a server may take over one of these requests."""
ENDING_SECONDS = 0.5
"""After a lost connection, how long a server of ours may take to turn out to have ended."""
PROVIDER = "hosted_vllm/"
METRICS = {
    "vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
    "vllm:prefix_cache_queries_total": "prefix_cache_queries", "vllm:prefix_cache_hits_total": "prefix_cache_hits",
    "vllm:prompt_tokens_total": "prompt_tokens", "vllm:generation_tokens_total": "generation_tokens",
    "process_start_time_seconds": "started"}
"""Counters by vLLM's name, and what `metrics` calls them."""
_LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(?P<value>\S+)")


class VllmClient:
    """A vLLM server at `url` that somebody runs.

    Adapters are versions: a name never gets other weights, and neither does a directory. vLLM keys its prefix cache by
    an adapter's name and path, and reads an adapter that it has put aside from its path again; weights that change in
    place are answered from the cache of the old ones.

    Args:
        url: like http://127.0.0.1:8000/v1.
        name: the model as the server names it; None: the first that it serves.
        api_key: by default HOSTED_VLLM_API_KEY.
        max_lora_rank: what the server was started with, to refuse larger ranks before they are sent.

    Example:
        >>> server = VllmServer.attach("http://127.0.0.1:8000/v1")
        >>> server.load_adapter("tiny@value-v1", "runs/stl/adapter-1")
        >>> server.metrics()["running"]
        0.0
    """

    def __init__(self, url: str, *, name: str | None = None, api_key: str | None = None,
                 max_lora_rank: int | None = None):
        url = url.rstrip("/")
        self.url = url if url.endswith("/v1") else f"{url}/v1"
        self.max_lora_rank = max_lora_rank
        self._name, self._api_key = name, api_key or os.environ.get("HOSTED_VLLM_API_KEY")
        self._pool = Pool(self.url, self._api_key)
        self._named: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        """A server that we did not start goes on."""

    @property
    def name(self) -> str:
        """The base model as the server names it."""
        if self._name is None:
            bases = [name for name, row in self._served().items() if not row.parent]
            if not bases:
                raise ModelError(f"{address(self.url)} lists no base model; is this a vLLM server?")
            self._name = bases[0]
        return self._name

    @property
    def model(self) -> str:
        """The LiteLLM string of the base model."""
        return PROVIDER + self.name

    def check(self, seconds: float = 0.0) -> None:
        """Raises ModelError when the server is known to have ended, or does so within `seconds`. Sends nothing."""

    def health(self) -> bool:
        """Whether the server answers and says that it is well. Raises ModelError when it is known to have ended."""
        try:
            return self._ask("GET", "health").status == 200
        except ModelError:
            self.check()
            return False

    def metrics(self) -> dict[str, float]:
        """What the server counts, by the names in METRICS: summed over its engines, the fullest KV cache of them.

        `kv_cache_usage` is a share of 1, `started` the Unix time of the server's start, the prefix cache counts tokens.
        A counter that the server does not have is absent.
        """
        return parse_metrics(self._ask("GET", "metrics").data.decode(errors="replace").splitlines())

    def adapters(self) -> dict[str, Path]:
        """The adapters that the server answers to, and where it read them."""
        return {name: Path(row.root) for name, row in self._served().items() if row.parent and row.root}

    def load_adapter(self, name: str, path: str | Path) -> None:
        """Serve the adapter at `path` as `name` while the server goes on; the server must see the same file system.

        Loading the same weights under the same name again does nothing. `name` may carry the provider in front.

        Raises AdapterError for no adapter, another base, a rank above `max_lora_rank`, or weights that changed under a
        name or in a directory that this server has seen; ModelError when the server does not answer.
        """
        name, path = name.removeprefix(PROVIDER), Path(path).resolve()
        found = adapter_hash(path)
        if self._named.get(name, found) != found:
            raise AdapterError(f"{name!r} was loaded with other weights ({self._named[name][:10]}, now {found[:10]}); "
                               "give new weights a new version")
        if name in (served := self.adapters()) and name not in self._named and found[:10] not in name:
            raise AdapterError(f"{name!r} is already served from {served[name]}, and its name does not say with which "
                               "weights; unload it, or choose a new version")
        self._check_rank(path)
        try:
            self._pool.load_adapter(name, path, self.name)
        except AdapterError:
            self.check(ENDING_SECONDS)
            raise
        self._named[name] = found

    def unload_adapter(self, name: str) -> None:
        """Serve `name` no longer; requests in flight under it are answered. Raises AdapterError where there is none."""
        self.check()
        self._pool.unload_adapter(name.removeprefix(PROVIDER))

    def _check_rank(self, path: Path) -> None:
        try:
            config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
            rank = max(config["r"], *(config.get("rank_pattern") or {}).values(), 0)
        except (ValueError, KeyError, TypeError):
            raise AdapterError(f"{path}/adapter_config.json names no rank; it is not as PEFT wrote it") from None
        if self.max_lora_rank is not None and rank > self.max_lora_rank:
            raise AdapterError(f"the adapter {path} has rank {rank}; the server takes at most {self.max_lora_rank}: "
                               f"train a smaller one, or start it with max_lora_rank={rank} or more")

    def _served(self) -> dict[str, Listed]:
        """What the server lists, by name."""
        reply = self._ask("GET", "v1/models")
        if reply.status != 200:
            raise ModelError(f"{address(self.url)} answered {reply.status}: {self._pool.clean(words(reply.data))}")
        if (found := reply.models()) is None:
            raise ModelError(f"{address(self.url)}/models is no list of models; is this a vLLM server?")
        return found

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        self.check()
        try:
            return ask(method, under(self.url.removesuffix("/v1"), path), self._pool.headers(self._pool.servers[0]),
                       ANSWER_SECONDS, body)
        except NoAnswer as error:
            self.check(ENDING_SECONDS)
            raise ModelError(f"no answer from {address(self.url)} ({error}); start the server or "
                             "correct the URL") from None


def parse_metrics(lines: Iterable[str]) -> dict[str, float]:
    """The counters of METRICS in Prometheus' text format."""
    found: dict[str, float] = {}
    for line in lines:
        match = _LINE.match(line)
        if match and (name := METRICS.get(match["name"])) and (value := _number(match["value"])) is not None:
            found[name] = max(found.get(name, 0.0), value) if name in ("kv_cache_usage", "started") else (
                found.get(name, 0.0) + value)
    return found


def _number(text: str) -> float | None:
    try:
        return value if math.isfinite(value := float(text)) else None
    except ValueError:
        return None
