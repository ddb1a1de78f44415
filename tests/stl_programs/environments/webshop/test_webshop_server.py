"""The HTTP contract that published clients rely on, and what a hostile or careless one gets."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from stl_programs import WebShop
from stl_programs.environments.webshop.html import render
from stl_programs.environments.webshop.pages import clickables, compact
from stl_programs.environments.webshop.server import Desk
from stl_programs.environments.webshop.shop import Session
from tests.stl_programs.environments.webshop.conftest import EveryWord
from tests.stl_programs.environments.webshop.published_client import Client


@contextmanager
def serving(shop: WebShop, **settings) -> Iterator[str]:
    """A real server on a port of this machine."""
    import asyncio

    loop, started, port = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(Desk(shop, **settings).app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(site._server.sockets[0].getsockname()[1])
        started.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module")
def base(shop) -> Iterator[str]:
    with serving(shop, hosts=frozenset({"127.0.0.1"})) as url:
        yield url


def get(url: str, **headers) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_recorded_sessions_of_a_published_client_repeat_word_for_word(data, golden):
    with serving(WebShop(data / "webshop", seed=0, tags=EveryWord())) as url:
        for recorded in golden("http_sessions"):
            client = Client(url, recorded["session"])
            for step in recorded["steps"]:
                if "error" in step:
                    with pytest.raises(AssertionError):
                        client.act(step["action"])
                    continue
                assert client.act(step["action"]) == (step["observation"], step["reward"], step["done"]), step["action"]


def test_every_page_reads_over_http_as_it_does_here(shop, base):
    """What a client makes of the HTML is the compact form of the page; choices come with the address."""
    engine = shop.shop
    product = next(product for product in shop.catalogue.products if len(product.options) == 2)
    (_, values), _ = product.options
    client, session = Client(base, "fixed_7"), Session(7)
    for action in ("reset", f"search[{product.title.lower()}]", f"click[{product.asin}]", f"click[{values[0]}]",
                   "click[Features]", "click[< Prev]", "click[Description]", "click[< Prev]", "click[< Prev]",
                   "click[Next >]"):
        seen = client.act(action)[0]
        session = session if action == "reset" else engine.step(session, action)
        if not seen.startswith("You have clicked"):
            assert seen == compact(engine.page(session), engine.url(session, json_options=False), 3), action
    assert session.number == 2


def test_a_session_with_another_name_gets_a_goal_once(base):
    first, again = get(f"{base}/alice")[1], get(f"{base}/alice")[1]
    assert first == again and "Instruction: <br>" in first
    assert len({get(f"{base}/guest{i}")[1].split("Instruction")[1] for i in range(8)}) > 4
    code, said = get(f"{base}/search_results/bob/mug/1")
    assert code == 400 and "begins it" in said


@pytest.mark.parametrize("path, said", [
    ("fixed_250", "fixed_0 to fixed_249"), ("fixed_x", "fixed_0 to fixed_249"), ("n" * 200, "200 characters"),
    ("search_results/fixed_0/mug/0", "page '0'"), ("search_results/fixed_0/mug/99999", "page '99999'"),
    ("search_results/fixed_0/%20/1", "characters"), (f"search_results/fixed_0/{'a' * 2000}/1", "2000 characters"),
    ("item_page/fixed_0/NOPE/mug/1/{}", "no product 'NOPE'"), ("done/fixed_0/NOPE/{}", "no product 'NOPE'"),
    ("done/fixed_0/ASIN/{__import__('os').system('true')}", "as Python writes them"),
    ("done/fixed_0/ASIN/{'a': 1}", "no dict of texts"), ("done/fixed_0/ASIN/{" + "(" * 900, "as Python writes them"),
    ("done/fixed_0/ASIN/{" + "1" * 5000, "at most 4000"),
    ("item_sub_page/fixed_0/ASIN/mug/1/Secrets/{}", "no page 'Secrets'"),
    ("choose/fixed_0/ASIN/mug/1/Steal", "no button 'Steal'")])
def test_what_is_asked_wrongly_is_one_line(shop, base, path, said):
    code, text = get(f"{base}/{urllib.parse.quote(path.replace('ASIN', shop.catalogue.products[0].asin), safe='/%')}")
    assert code == 400 and said in text and "\n" not in text and "Traceback" not in text


def test_another_site_cannot_reach_the_shop_and_pages_run_nothing(base):
    assert get(f"{base}/fixed_0", Host="evil.example")[0] == 403
    with urllib.request.urlopen(f"{base}/fixed_0") as reply:
        policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "form-action 'self'" in policy


def test_a_form_carries_the_chosen_options_and_nothing_else(shop, base):
    product = next(product for product in shop.catalogue.products if product.options)
    (name, values), *_ = product.options
    query = urllib.parse.urlencode({name: values[1], "other": "x", "color" if name != "color" else "size": "nowhere"})
    connection = http.client.HTTPConnection(base.removeprefix("http://"))
    connection.request("GET", f"/choose/fixed_0/{product.asin}/mug/1/Buy%20Now?{query}")
    reply = connection.getresponse()
    assert reply.status == 303
    assert urllib.parse.unquote(reply.headers["Location"]) == f"/done/fixed_0/{product.asin}/{ {name: values[1]} }"
    connection.close()


def test_hostile_words_stay_words(shop):
    evil = "<script>alert(1)</script>\"' & [[x]]"
    product = shop.catalogue.products[0]._replace(
        title=evil, description=evil, bullets=(evil,), options=((evil, (evil, "plain")),), attributes=(evil,))
    engine = shop.shop
    asins, engine.catalogue.by_asin = engine.catalogue.by_asin, {product.asin: product}
    try:
        for kind, sub in (("item", ""), ("sub", "Description"), ("sub", "Features"), ("sub", "Attributes"),
                          ("done", "")):
            session = Session(0, kind, (evil,), 1, product.asin, ((evil, evil),), sub)
            engine.page.cache_clear()
            text = render(engine.page(session), session, f"fixed_0{evil}")
            assert "<script" not in text and "alert(1)" in text
            assert 'name="' + evil not in text
        assert evil in clickables(engine.page(Session(0, "item", ("x",), 1, product.asin)))
    finally:
        engine.catalogue.by_asin = asins
        engine.page.cache_clear()


def test_the_command_serves_and_says_what(tmp_path):
    server = subprocess.Popen([sys.executable, "-u", "-m", "stl_programs.environments.webshop", "--port", "0", "--tags",
                               "rules"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = server.stdout.readline() + server.stdout.readline()
        assert "400 products" in said and "fixed_0" in said
    finally:
        server.terminate()
        server.wait(20)
    wrong = subprocess.run([sys.executable, "-m", "stl_programs.environments.webshop", "--items", str(tmp_path / "x")],
                           capture_output=True, text=True, env={**os.environ})
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
