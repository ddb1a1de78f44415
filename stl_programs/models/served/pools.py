"""Servers of one model: the least busy takes the next request; one that fails is set aside, and comes back whole."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stl_programs.display import one_line
from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.adapters import read_provenance
from stl_programs.models.artifacts import PROVENANCE, adapter_hash, weights_hash
from stl_programs.models.served.http import Answer, Listed, NoAnswer, ask
from stl_programs.models.served.urls import address, is_base_url, secrets, under, without_secrets, words
from stl_programs.secrets import know, know_fields, know_url

CHECK_SECONDS = 5.0
"""How long a server may take to say what it serves."""
LOAD_SECONDS = 60.0
"""How long it may take to load an adapter."""
ASIDE_SECONDS = 5.0
"""How long a server that failed gets no requests while another is up."""
FAILURES_IN_A_ROW = 3
"""Replies of 5xx after which it is set aside as well: one that only refuses would always look least busy."""


@dataclass(eq=False)
class Server:
    """One base URL, as this process knows it; models of one URL share it."""

    url: str = field(repr=False)
    in_flight: int = 0
    aside_until: float = 0.0
    """Seconds of `time.monotonic`."""
    returning: bool = False
    """It has failed since it last answered: before it is used again it is asked what it serves."""
    failures: int = 0
    """Replies of 5xx in a row."""
    adapters: dict[str, Path] = field(default_factory=dict)
    """What it has to serve beside the base: names on the server, and directories."""
    weights: dict[Path, str] = field(default_factory=dict)
    """The hashes of the adapters that it was ever given, by directory."""

    @cached_property
    def address(self) -> str:
        return address(self.url)


_servers: dict[str, Server] = {}
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child gets it free
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Pool:
    """One or several servers of one model.

    Args:
        urls: base URLs, up to and with /v1, separated by commas.
        key: sent to each of them, but for those whose URL names a user.
        headers: further ones of every request.

    Raises ModelError for what is no URL.
    """

    def __init__(self, urls: str, key: str | None = None, headers: Mapping[str, str] | None = None):
        single = list(dict.fromkeys(filter(None, map(str.strip, urls.split(",")))))
        if not single or not all(map(is_base_url, single)):
            raise ModelError("a base URL is not one; write http://HOST:PORT/v1, several with commas between them")
        self.servers = [_servers.setdefault(url, Server(url)) for url in single]
        self.endpoint = ",".join(server.address for server in self.servers)
        self._key, self._headers = key, dict(headers or {})
        know(key)
        know_url(urls)
        know_fields(self._headers)

    def headers(self, server: Server) -> dict[str, str]:
        """The header that carries the key, none where the URL itself names a user; and the user's own headers."""
        if not self._key or "@" in urlsplit(server.url).netloc:
            return self._headers
        return {"Authorization": f"Bearer {self._key}"} | self._headers

    def clean(self, text: str, hidden: Iterable[str | None] = ()) -> str:
        """One line of a server's words, without keys and passwords should it echo them."""
        of_urls = [part for server in self.servers for part in secrets(server.url)]
        return without_secrets(text, [self._key, *hidden, *of_urls])

    # Requests

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        """The server of one request. Raises TransientError where none answers."""
        server = await self._take()
        try:
            yield server
        finally:
            _count(server, -1)

    async def _take(self) -> Server:
        why: str | None = None
        for _ in self.servers:
            server = self._least_busy()
            if not server.returning or (len(self.servers) == 1 and not server.adapters):
                return server
            server.aside_until = time.monotonic() + ASIDE_SECONDS
            try:
                why = await asyncio.to_thread(self._welcome, server)
            except BaseException:
                _count(server, -1)
                raise
            if why is None:
                server.returning, server.failures, server.aside_until = False, 0, 0.0
                return server
            _count(server, -1)
        raise TransientError(f"no server is up: {why}")

    def _least_busy(self) -> Server:
        with _lock:
            now = time.monotonic()
            up = [server for server in self.servers if server.aside_until <= now]
            chosen = (min(up, key=lambda server: server.in_flight) if up
                      else min(self.servers, key=lambda server: server.aside_until))
            chosen.in_flight += 1
            return chosen

    def _welcome(self, server: Server) -> str | None:
        """Load what a server that comes back has to serve. None, or why it cannot be used."""
        try:
            served = self.models(server)
            for name, path in list(server.adapters.items()):
                if name not in served:
                    _check_unchanged(server, path)
                    self._load(server, name, path)
        except NoAnswer as error:
            return f"no answer from {server.address} ({error})"
        except AdapterError as error:
            return str(error)
        return None

    def lost(self, server: Server) -> float | None:
        """Set aside a server that did not answer. 0.0: its request may go elsewhere at once; None: nowhere."""
        server.returning, server.aside_until = True, time.monotonic() + ASIDE_SECONDS
        return 0.0 if any(other.aside_until <= time.monotonic() for other in self.servers) else None

    def refused(self, server: Server) -> None:
        """Count a reply of 5xx; several in a row set the server aside."""
        server.failures += 1
        if server.failures >= FAILURES_IN_A_ROW:
            self.lost(server)

    # Adapters

    def models(self, server: Server) -> dict[str, Listed]:
        """What the server lists at /models, by name; empty where it keeps no such list. Raises NoAnswer."""
        reply = self._ask(server, "GET", "models")
        if reply.status >= 500:
            raise NoAnswer(f"it answered {reply.status}")
        return reply.models() or {}

    def load_adapter(self, name: str, path: Path, base: str) -> None:
        """Have every server serve `path` as `name`, or none.

        One that does not answer while another does gets it when it comes back. vLLM keys its prefix cache by an
        adapter's name and path: weights that change in place would be answered from the cache of the old ones.

        Raises AdapterError for a directory that holds no adapter, or others than when a server first read it; where a
        server refuses, serves another adapter under that name, or another base than the adapter was trained on.
        """
        loaded, silent = [], []
        for server in self.servers:
            try:
                self._load_checked(server, name, path, base)
                loaded.append(server)
            except NoAnswer as error:
                silent.append((server, str(error)))
            except AdapterError:
                for other in loaded:
                    with suppress(NoAnswer):
                        self._unload(other, name)
                raise
        if not loaded:
            raise AdapterError(f"no answer from {self.endpoint} to the adapter {path} ({silent[0][1]})")
        for server, _ in silent:
            server.adapters[name] = path
            self.lost(server)

    def _load_checked(self, server: Server, name: str, path: Path, base: str) -> None:
        _check_unchanged(server, path)
        served = self.models(server)
        check_base(served[base].root if base in served else None, path, server.address)
        if name not in served:
            self._load(server, name, path)
        elif str(held := served[name].root or server.adapters.get(name)) != str(path):
            raise AdapterError(f"{server.address} serves {name} already, from {held}; give the adapter {path} a new "
                               "version")
        server.adapters[name] = path

    def _load(self, server: Server, name: str, path: Path) -> None:
        reply = self._ask(server, "POST", "load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if reply.status == 200 or (b"already" in reply.data and server.adapters.get(name) == path):
            return
        hint = ("; start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                if reply.status == 404 and b"detail" in reply.data else "")
        raise AdapterError(f"{server.address} did not load the adapter {path} ({reply.status}): "
                           f"{self.clean(words(reply.data))[:200]}{hint}")

    def unload_adapter(self, name: str) -> None:
        """Have no server serve `name`. Raises AdapterError where none did."""
        found, silent = False, None
        for server in self.servers:
            found |= name in server.adapters
            try:
                found |= self._unload(server, name)
            except NoAnswer as error:
                silent = f"no answer from {server.address} ({error})"
        if not found:
            raise AdapterError(silent or f"{self.endpoint} serves no adapter {name}")

    def _unload(self, server: Server, name: str) -> bool:
        server.adapters.pop(name, None)
        return self._ask(server, "POST", "unload_lora_adapter", {"lora_name": name}).status == 200

    def _ask(self, server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return ask(method, under(server.url, path), self.headers(server), LOAD_SECONDS if body else CHECK_SECONDS, body)

    # Before any work

    def troubles(self, wanted: str, max_tokens: int = 0) -> list[str]:
        """Why servers cannot answer as the model `wanted` with `max_tokens`, a line for each that cannot.

        One whose list does not name the model is warned of: many answer to more names than they list.
        """
        with ThreadPoolExecutor(max_workers=len(self.servers)) as side_by_side:
            return [line for line in side_by_side.map(
                lambda server: self._trouble(server, wanted, max_tokens), self.servers) if line]

    def _trouble(self, server: Server, wanted: str, max_tokens: int) -> str | None:
        try:
            reply = self._ask(server, "GET", "models")
        except NoAnswer as error:
            return (f"no answer from {server.address} within {CHECK_SECONDS:g} s ({error}); start the "
                    "server or correct the URL")
        if reply.status in (401, 403):
            return f"{server.address} refuses the key ({reply.status})"
        served = reply.models()
        if served and wanted not in served:
            listed = one_line(", ".join(sorted(served)[:5]))
            warnings.warn(f"{server.address} lists {listed}, not {wanted!r}; it is asked all the same", stacklevel=2)
        elif served:
            context = served[wanted].max_model_len
            if max_tokens >= (context or math.inf):
                return (f"{server.address} has room for {context} tokens of prompt and reply together, none for a "
                        f"prompt beside max_tokens={max_tokens}; take fewer, or serve it with a longer context")
        return None


def _count(server: Server, more: int) -> None:
    with _lock:
        server.in_flight += more


def _check_unchanged(server: Server, path: Path) -> None:
    found = adapter_hash(path)
    if (first := server.weights.setdefault(path, found)) != found:
        raise AdapterError(f"{path} held other weights when {server.address} first read it ({first[:12]}, now "
                           f"{found[:12]}); write new weights to a new directory")


def check_base(root: Any, path: Path, server: str) -> None:
    """Raises AdapterError where the adapter's provenance names another base than the weights that are served.

    Where the served base is no directory on this disk, or the adapter has no provenance, there is nothing to compare.
    """
    directory = Path(root) if isinstance(root, str) and root else None
    if directory is None or not (path / PROVENANCE).exists() or not any(directory.glob("*.safetensors")):
        return
    trained_on = read_provenance(path).base_sha256
    if trained_on != (served := weights_hash(directory)):
        raise AdapterError(f"the adapter {path} was trained on base {trained_on[:12]}; {server} serves "
                           f"{served[:12]} ({directory})")
