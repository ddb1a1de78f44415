"""Which servers and stores answer, and how fast; each is asked for a bounded time."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from stl_programs.doctor.finding import SECONDS, Finding
from stl_programs.errors import ModelError
from stl_programs.models.served.http import Answer, NoAnswer, ask
from stl_programs.models.served.urls import address, is_base_url, secrets, under, without_secrets


def reach(servers: Sequence[str] = ()) -> list[Finding]:
    """Every server's state and latency, all asked at once. HOSTED_VLLM_API_KEY goes to its own servers only."""
    own = [url.strip() for url in os.environ.get("HOSTED_VLLM_API_BASE", "").split(",") if url.strip()]
    key = os.environ.get("HOSTED_VLLM_API_KEY")
    asked = [(url, key) for url in own] + [(url, None) for url in servers if url not in own]
    if not asked:
        return [Finding("none", "HOSTED_VLLM_API_BASE is not set, and there is no --server")]
    with ThreadPoolExecutor(len(asked)) as side_by_side:
        return list(side_by_side.map(lambda pair: probe(*pair), asked))


def probe(url: str, key: str | None = None, path: str = "models") -> Finding:
    """Ask for `path` below `url`, within SECONDS."""
    if not is_base_url(url):
        return Finding("a server", "its URL is none; write it like http://127.0.0.1:8000/v1", True,
                       {"state": "not a URL"})
    name, headers = address(url), {"Authorization": f"Bearer {key}"} if key and "@" not in url else {}
    started = time.perf_counter()
    try:
        reply = ask("GET", under(url, path), headers, SECONDS)
    except ModelError as error:  # a proxy that is not spoken to
        return Finding(name, str(error), True, {"state": "not reached"})
    except NoAnswer as error:
        if "Timeout" in str(error):
            return Finding(name, f"no answer within {SECONDS:g} s", True, {"state": "no answer"})
        return Finding(name, f"not reached ({error})", True, {"state": "not reached"})
    milliseconds = 1e3 * (time.perf_counter() - started)
    state, said, problem = _judge(reply, url, path, key)
    return Finding(name, f"{said}, {milliseconds:.0f} ms", problem,
                   {"state": state, "status": reply.status, "ms": round(milliseconds, 1)})


def _judge(reply: Answer, url: str, path: str, key: str | None) -> tuple[str, str, bool]:
    """State, words, and whether it is a problem."""
    if reply.status in (401, 403):
        return "locked", f"wants {'another key' if key else 'a key; none was sent'} ({reply.status})", bool(key)
    if reply.status != 200:
        hint = "; does the URL lack /v1?" if reply.status == 404 and path == "models" else ""
        return "error", f"answered {reply.status}{hint}", True
    if (listed := reply.models()) is None:
        return "ok", "answers", False
    names = ", ".join(list(listed)[:5])
    shown = without_secrets(names, [key, urlsplit(url).username, *secrets(url), *_set_keys()])
    return "ok", f"serves {shown.encode('ascii', 'backslashreplace').decode() or 'no model'}", False


def _set_keys() -> list[str]:
    return [value for name, value in os.environ.items() if name.endswith("_API_KEY")]


def look_into(store: str) -> Finding:
    """An MLflow store: how many runs a sqlite file holds, or whether a tracking server answers."""
    if store.startswith(("http://", "https://")):
        return probe(store, path="health")
    path = Path(store.removeprefix("sqlite:///").partition("?")[0])
    if not store.startswith("sqlite:///"):
        return Finding("store", f"not looked into: of {urlsplit(store).scheme or 'files'} only sqlite:///FILE and "
                                "http://HOST are", True, {"state": "not examined"})
    if not path.is_file():
        return Finding("sqlite", f"there is no {path} yet; the first run makes it", facts={"state": "absent"})
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=SECONDS) as database:
            [(runs,)] = database.execute("select count(*) from runs")
    except sqlite3.Error as error:
        return Finding("sqlite", f"{path} is no MLflow store ({error})", True, {"state": "unreadable"})
    return Finding("sqlite", f"{path}: {runs} runs, {path.stat().st_size / 1e6:.1f} MB",
                   facts={"state": "ok", "runs": runs})
