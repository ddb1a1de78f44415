"""The same shop behind HTTP: our server, bad servers, and AgentGym's protocol."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from signatures import EstimateValue
from stl_programs import AgentGymEnvironment, BeamSearch, GreedySearch, LegalMoves, Value, WebShop, run_tasks
from stl_programs.environments.webshop import WebShopClient
from stl_programs.environments.webshop.reading import read_page
from stl_programs.environments.webshop.shop import Session
from stl_programs.errors import SettingError, StlError, TaskError, TransientError
from stl_programs.testing import ScriptedModel, answering
from tests.stl_programs.environments.webshop.test_webshop_server import serving


def overlap(inputs, seed):
    """A named fake: it counts words of the task on the page."""
    words = set(inputs["task"].lower().split())
    share = len(words & set(inputs["state"].lower().replace("[", " ").replace("]", " ").split())) / len(words)
    return {"rationale": "Words were counted.", "score": f"{1 + 9 * share:.2f}"}


def greedy(env, tasks, search=GreedySearch, **settings):
    program = search(env, LegalMoves(), Value(EstimateValue, ScriptedModel("scripted/overlap", answering(overlap)),
                                              samples=1), **settings)
    return asyncio.run(run_tasks(program, tasks))


@pytest.mark.parametrize("search", [GreedySearch, BeamSearch])
def test_a_search_over_http_finds_what_it_finds_here(search):
    here = WebShop(tags="rules", shown=10, max_depth=5)
    with serving(here) as url:
        there = WebShopClient(url, goals=250, max_depth=5)
        settings = {"width": 2} if search is BeamSearch else {}
        near = greedy(here, here.tasks("test")[:4], search, **settings)
        far = greedy(there, there.tasks("test")[:4], search, **settings)
        assert [one.error for one in far] == [None] * 4
        assert [one.trajectory for one in far] == [one.trajectory for one in near]
        assert [one.answer for one in far] == [one.answer for one in near]
        scores = asyncio.run(_scores(there, far))
        assert scores == [here.score(task, one.answer) for task, one in zip(here.tasks("test"), near, strict=False)]
        assert any(scores) and all(one.usage["environment"]["steps"] > 4 for one in far)


async def _scores(env, results):
    found = [await env.ascore(env.task(one.task), one.answer) for one in results]
    await env.aclose()
    return found


def test_a_resumed_search_over_http_asks_nothing_again(tmp_path):
    here = WebShop(tags="rules", max_depth=4)
    model = ScriptedModel("scripted/overlap", answering(overlap))
    with serving(here) as url:
        there = WebShopClient(url, max_depth=4, goals=250)
        program = GreedySearch(there, LegalMoves(), Value(EstimateValue, model, samples=1))
        first = asyncio.run(run_tasks(program, there.tasks("test")[:2], journal=tmp_path / "j"))
    again = asyncio.run(run_tasks(program, there.tasks("test")[:2], journal=tmp_path / "j"))
    assert [one.trajectory for one in again] == [one.trajectory for one in first]


def test_pages_are_read_as_the_original_s(golden, benchmark):
    """The recorded pages of the reference, unclosed tags and all, give the nodes of our own pages."""
    shop, pages = benchmark.shop, golden("golden_html")
    session = Session(0)
    query = "ambesonne abstract throw pillow"
    for name, action in (("search", None), ("results", None), ("item", "click[b0743jkhbv]"),
                         ("description", "click[description]"), ("features", "click[features]"),
                         ("done", "click[buy now]")):
        found = read_page(pages[name])
        if name == "search":
            assert [node.text.strip() for node in found] == [
                node.text.strip() for node in shop.page(session)]
        elif name == "results":
            session = shop.step(session, f"search[{benchmark.goals[0].name.lower()}]")
            assert [(node.kind, node.text.strip()) for node in found] == [
                (node.kind, node.text.strip()) for node in shop.page(session)], query
        else:
            after = shop.step(session, action)
            if name != "done":
                assert [(node.kind, node.text.strip(), node.option.strip()) for node in found] == [
                    (node.kind, node.text.strip(), node.option.strip()) for node in shop.page(after)], name
            session = after if name == "item" else session


class Rude(BaseHTTPRequestHandler):
    """A server that answers as its `mood` says."""

    mood = "error page"

    def log_message(self, *_):
        pass

    def do_GET(self):
        import time

        if self.mood == "hangs":
            time.sleep(2)
        status, body = {"error page": (500, "<html><body>Internal Server Error</body></html>"), "hangs": (200, ""),
                        "other": (200, "<html><body><h1>It works!</h1></body></html>"), "empty": (200, ""),
                        "no goal": (200, "<html><body><button>Search</button></body></html>")}[self.mood]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(body.encode())


@contextmanager
def listening(handler) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("mood, kind, said", [
    ("error page", TransientError, "status 500"), ("hangs", TransientError, "did not answer within"),
    ("other", StlError, "no page of a shop"), ("empty", StlError, "no page of a shop"),
    ("no goal", StlError, "no instruction")])
def test_a_server_that_is_none_is_one_line(mood, kind, said):
    with listening(type("Mood", (Rude,), {"mood": mood})) as url:
        env = WebShopClient(url, seconds=0.3 if mood == "hangs" else 5.0)
        with pytest.raises(kind, match=said) as refused:
            asyncio.run(env.areset(env.task("0")))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_what_is_asked_of_a_client_is_checked():
    with pytest.raises(SettingError, match="no address"):
        WebShopClient("localhost:3000")
    env = WebShopClient("http://127.0.0.1:9", goals=3)
    for wrong in ("3", "fixed_x", "-1", ""):
        with pytest.raises(TaskError, match="fixed_0 to fixed_2"):
            env.task(wrong)
    with pytest.raises(TransientError, match="is it running"):
        asyncio.run(env.areset(env.task("0")))
    with pytest.raises(StlError, match="areset"):
        env.reset(env.task("0"))


class Gym(BaseHTTPRequestHandler):
    """AgentGym's protocol over our engine, with the sessions that are open."""

    shop: WebShop
    open: dict
    forgetful = False

    def log_message(self, *_):
        pass

    def do_GET(self):
        session = self.open[int(parse_qs(urlsplit(self.path).query)["env_idx"][0])]
        self.say({"has_search_bar": session.kind == "index", "clickables": self.shop.shop.clickables(session)})

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine, open_ = self.shop.shop, self.open
        if self.path == "/create":
            open_["last"] = number = open_.get("last", 0) + 1
            open_[number] = Session(0)
            return self.say(number)
        number = said["env_idx"]
        if self.path == "/close":
            return self.say({"closed": open_.pop(number, None) is not None})
        if self.path == "/reset":
            open_[number] = Session(said["session_id"])
            return self.say([engine.show(open_[number], "text"), None])
        open_[number] = after = engine.step(open_[number], said["action"])
        reward = engine.reward(after).total if after.kind == "done" else 0.0
        text = (f"visit {number} " if self.forgetful else "") + engine.show(after, "text")
        return self.say({"state": text, "reward": reward, "done": after.kind == "done", "info": None})

    def say(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_agentgym_is_searched_by_replay_and_every_session_is_closed():
    here, sessions = WebShop(tags="rules", max_depth=4, browse=True), {}
    with listening(type("Mine", (Gym,), {"shop": here, "open": sessions})) as url:
        env = AgentGymEnvironment(url, goals=250, max_depth=4)
        results = greedy(env, env.tasks("test")[:2], BeamSearch, width=2)
        assert [one.error for one in results] == [None, None]
        scores = asyncio.run(_scores(env, results))
        for one, score in zip(results, scores, strict=True):
            state = here.reset(here.task(one.task))
            for text in one.trajectory:
                state = here.step(state, here.action(state, text)).state
            bought = here.answer(here.task(one.task), state) if one.answer else ""
            assert score == here.score(here.task(one.task), bought)
        assert sessions.pop("last") > 4 and not sessions, "sessions were left open"


def test_an_agentgym_that_replays_differently_is_an_error_that_names_both():
    here, sessions = WebShop(tags="rules", max_depth=4, browse=True), {}
    with listening(type("Mine", (Gym,), {"shop": here, "open": sessions, "forgetful": True})) as url:
        env = AgentGymEnvironment(url, goals=250, max_depth=4)
        [result] = greedy(env, env.tasks("test")[:1], BeamSearch, width=2)
        assert "cannot be replayed" in result.error and "visit" in result.error
        sessions.pop("last")
        assert not sessions
