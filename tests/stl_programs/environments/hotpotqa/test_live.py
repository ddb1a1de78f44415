"""The live wiki against a server of this machine that speaks MediaWiki's API, well and badly."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from stl_programs import GreedySearch, HotpotQA, Policy, Value, run_tasks
from stl_programs.environments.hotpotqa import LiveWiki
from stl_programs.environments.hotpotqa import live as live_module
from stl_programs.environments.hotpotqa.live import sentences
from stl_programs.errors import SettingError, StlError, TransientError
from stl_programs.testing import ScriptedModel, answering

PAGES = {"Mull": "Mull is a river. It is long.\n\nHistory\nA bridge was built. It fell.", "Hask": "Hask is a land."}


class Wikimedia(ThreadingHTTPServer):
    """Counts requests; `mood` says how it answers."""

    daemon_threads = True
    mood = "well"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.agents: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Wikimedia

    def log_message(self, *_):
        pass

    def do_GET(self):
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(query)
        self.server.agents.add(self.headers["User-Agent"])
        mood = self.server.mood
        if mood == "busy once":
            self.server.mood = "well"
            return self.send(429, b"slow down", {"Retry-After": "0"})
        if mood == "html":
            return self.send(200, b"<html>maintenance</html>")
        if mood == "error":
            return self.send(200, json.dumps({"error": {"code": "bad", "info": "no such thing"}}).encode())
        if mood == "gone":
            return self.send(404, b"not here")
        if mood == "huge":
            return self.send(200, b" " * (17 * 2**20))
        if mood == "hangs":
            time.sleep(1.5)
        if query.get("list") == "search":
            found = [{"title": title} for title in PAGES]
            return self.send(200, json.dumps({"query": {"search": found}}).encode())
        title = query["titles"].capitalize()
        page = {"title": title, "extract": PAGES[title]} if title in PAGES else {"title": title, "missing": True}
        return self.send(200, json.dumps({"query": {"pages": [page]}}).encode())

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    found = Wikimedia()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def live(server, **settings) -> LiveWiki:
    return LiveWiki(f"http://127.0.0.1:{server.server_port}/api.php", **{"interval": 0.0, **settings})


def ask(work):
    return asyncio.run(work)


def test_pages_and_searches_are_read_and_asked_once(server):
    wiki = live(server, contact="https://example.org/me")
    assert ask(wiki.apage("mull")) == ("Mull", ("Mull is a river.", "It is long.", "A bridge was built.", "It fell."))
    assert ask(wiki.apage("nowhere")) is None and ask(wiki.asimilar("land")) == ["Mull", "Hask"]
    count = len(server.asked)
    assert ask(wiki.apage("mull"))[0] == "Mull" and ask(wiki.apage("nowhere")) is None
    assert len(server.asked) == count == 3 and server.agents == {"stl-programs (https://example.org/me)"}
    assert {query["redirects"] for query in server.asked if "titles" in query} == {"1"}


def test_answers_are_kept_on_disk_and_belong_to_one_wiki(server, tmp_path):
    cache = tmp_path / "wiki.json"
    first = live(server, cache=cache)
    ask(first.apage("mull"))
    ask(first.apage("nowhere"))
    again = live(server, cache=cache)
    assert ask(again.apage("mull")) == ask(first.apage("mull")) and len(server.asked) == 2
    cache.write_text(cache.read_text(encoding="utf-8").replace(str(server.server_port), "1"), encoding="utf-8")
    with pytest.raises(StlError, match="holds answers of"):
        live(server, cache=cache)
    cache.write_text("{", encoding="utf-8")
    with pytest.raises(StlError, match="not a cache of wiki answers") as refused:
        live(server, cache=cache)
    assert "\n" not in str(refused.value)


def test_requests_take_turns(server, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(round(seconds, 6))

    monkeypatch.setattr(live_module.asyncio, "sleep", sleep)
    monkeypatch.setattr(live_module.time, "monotonic", lambda: 100.0)
    wiki = live(server, interval=0.1)

    async def together():
        await asyncio.gather(*(wiki.apage(name) for name in ("a", "b", "c", "d")))

    ask(together())
    assert sorted(waits) == [0.1, 0.2, 0.3] and len(server.asked) == 4


@pytest.mark.parametrize("mood, kind, said", [
    ("html", StlError, "does not answer as a MediaWiki API"), ("error", StlError, "no such thing"),
    ("gone", StlError, "status 404"), ("huge", StlError, "more than 16 MiB"),
    ("busy once", TransientError, "status 429"), ("hangs", TransientError, "did not answer within")])
def test_a_bad_answer_is_one_line(server, mood, kind, said):
    server.mood = mood
    with pytest.raises(kind, match=said) as refused:
        ask(live(server, seconds=0.5 if mood == "hangs" else 10.0).apage("mull"))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_nobody_there_and_no_address_are_one_line(server):
    with pytest.raises(TransientError, match="is it running"):
        ask(LiveWiki("http://127.0.0.1:9/api.php", interval=0.0).apage("x"))
    for url in ("wiki", "ftp://x/", "http://user:hunter2@host/"):
        with pytest.raises(SettingError, match="no address"):
            LiveWiki(url)


def test_sentences_leave_out_headings():
    assert sentences("A. B c.\n\nHead line\nD! E?") == ["A.", "B c.", "D!", "E?"]


def test_a_search_runs_over_it_and_a_busy_server_is_asked_again(server):
    env = HotpotQA(wiki=live(server))
    assert not env.pure and not env.listable and "live http" in env.provenance
    server.mood = "busy once"
    model = ScriptedModel("scripted/curious", answering(lambda inputs, seed: {
        "rationale": "look", "actions": ["search[Mull]", "lookup[bridge]", "finish[Mull]"],
        "score": "10" if "bridge was built" in inputs["state"] else "5"}))
    program = GreedySearch(env, Policy(env.policy_signature, model, count=3),
                           Value(env.value_signature, model, samples=1))
    [result] = ask(run_tasks(program, env.tasks("test")[:1]))
    assert result.error is None and result.usage["environment"]["steps"] > 3
    assert any("lookup" in step for step in result.trajectory) and len(server.asked) >= 2
