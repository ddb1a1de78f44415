"""How fast the worlds of the paper are, how they grow, and how much the light tagger changes.

    python -m experiments.benchmarks.environments [--only NAME] [--json FILE]

The largest index takes minutes and 8 GiB; ENVIRONMENTS=0.01 takes a hundredth of every count. The tagger's rows need
STL_DATA (the benchmark's 1,000 products), and spaCy with a model for its side of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.benchmarks.face import Row, at_most, main, median_and_spread
from stl_programs import HotpotQA, WebShop
from stl_programs.environments.base import Environment
from stl_programs.environments.retrieval.index import Index
from stl_programs.environments.webshop.catalogue import Catalogue
from stl_programs.environments.webshop.goals import draw_goals, draw_prices, generator
from stl_programs.environments.webshop.reward import reward
from stl_programs.environments.webshop.tagger import RuleTagger, Tagger, tagger
from stl_programs.errors import StlError
from stl_programs.records import Action, State

SHARE = float(os.environ.get("ENVIRONMENTS", "1"))
QUERIES = 200
SESSIONS, REQUESTS = 64, 10_000


def count(whole: int) -> int:
    return max(int(whole * SHARE), 100)


def texts(products: int, seed: int = 0) -> Iterator[str]:
    """What a search looks through, of that many fictional products: texts of the embedded
    ones, each with eight words of its own."""
    rng = random.Random(seed)
    bodies = [product.contents for product in WebShop(tags="rules").catalogue.products]
    words = [f"{a}{b}" for a in ("bel", "cor", "dan", "fer", "gil", "hom") for b in map(str, range(5000))]
    for _ in range(products):
        yield f"{rng.choice(bodies)} {' '.join(rng.choices(words, k=8))}"


def queries(seed: int = 1) -> list[str]:
    rng, products = random.Random(seed), WebShop(tags="rules").catalogue.products
    return [" ".join(rng.choice(products).title.lower().split()[:rng.randint(2, 8)]) for _ in range(QUERIES)]


def index() -> list[Row]:
    """Seconds to build an index and milliseconds of a search, by the number of products."""
    rows: list[Row] = []
    goals = {1_000: (2.0, 2.0), 100_000: (180.0, 30.0), 1_000_000: (None, None)}
    for size, (built, found) in goals.items():
        products = count(size)
        contents = list(texts(products))
        started = time.perf_counter()
        made = Index.build(contents)
        seconds = time.perf_counter() - started
        times = []
        for query in queries():
            begun = time.perf_counter()
            made.search(query, 50)
            times.append((time.perf_counter() - begun) * 1000)
        middle, spread = median_and_spread(times)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        name = f"{products:,} products"
        rows += [
            _row(f"index of {name}", seconds, built, "s", "one build"),
            _row(f"search among {name}", middle, found, "ms", f"{spread} queries"),
            _row(f"memory with the index of {name} and its texts", peak, 2.0 if size == 100_000 else None, "GiB",
                 "peak of the process until then")]
        del contents, made
    return rows


def _row(name: str, figure: float, goal: float | None, unit: str, spread: str) -> Row:
    return Row(name, figure, unit, spread=spread) if goal is None else at_most(name, figure, goal, unit, spread)


def steps() -> list[Row]:
    """Milliseconds of a step that does not search, over random legal play."""
    rows = []
    for env in (WebShop(tags="rules", browse=True), HotpotQA()):
        times = [seconds * 1000 for seconds in _steps(env, count(20_000))]
        middle, spread = median_and_spread(times)
        goal = 0.2 if isinstance(env, WebShop) else None
        rows.append(_row(f"{env.name}: a step without search", middle, goal, "ms", spread))
    return rows


def _steps(env: Environment, wanted: int) -> list[float]:
    rng, times = random.Random(0), list[float]()
    tasks = env.tasks("test")
    while len(times) < wanted:
        state = env.reset(rng.choice(tasks))
        for _ in range(12):
            actions = env.legal_actions(state)
            if not actions or state.terminal:
                break
            action = rng.choice(actions)
            begun = time.perf_counter()
            state = env.step(state, action).state
            if not action.text.startswith("search["):
                times.append(time.perf_counter() - begun)
    return times


def play() -> list[Row]:
    """Random legal play: exceptions, states that differ when replayed, rewards outside [0, 1]."""
    rows = []
    for env in (WebShop(tags="rules", browse=True), HotpotQA()):
        episodes, wrong, noops, moves = count(10_000), 0, 0, 0
        rng, tasks = random.Random(7), [*env.tasks("test"), *env.tasks("train")]
        for _ in range(episodes):
            task = rng.choice(tasks)
            start = state = env.reset(task)
            path: list[tuple[State, Any]] = []
            while not state.terminal and len(path) < env.max_depth and (actions := env.legal_actions(state)):
                action = rng.choice(actions)
                path.append((state, action))
                after = env.step(state, action).state
                noops, moves, state = noops + (after.key == state.key), moves + 1, after
            again = start
            for _, action in path:
                again = env.step(again, action).state
            score = env.score(task, env.answer(task, state))
            wrong += (again.key, again.text) != (state.key, state.text) or not 0 <= score <= 1
        rows.append(at_most(f"{env.name}: random episodes that raise, replay differently or score outside [0, 1]",
                            wrong, 0, "episodes",
                            f"of {episodes:,}; {moves:,} steps, {noops:,} of them changed nothing"))
    return rows


def server() -> list[Row]:
    """Sessions over HTTP at once: what is lost, how fast, and how memory grows."""
    from aiohttp import ClientSession, TCPConnector, web

    from stl_programs.environments.webshop.server import Desk

    async def work() -> tuple[int, float, float]:
        runner = web.AppRunner(Desk(WebShop(tags="rules")).app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        each, lost, words = max(count(REQUESTS) // SESSIONS, 8), 0, ["oak+mug", "shirt", "lamp+small", "towel"]

        async def session(client: Any, number: int) -> int:
            wrong = 0
            for i in range(each):
                path = f"/fixed_{number}" if i % 4 == 0 else f"/search_results/fixed_{number}/{words[i % 4]}/1"
                async with client.get(url + path) as reply:
                    wrong += reply.status != 200 or "</html>" not in await reply.text()
            return wrong

        async with ClientSession(connector=TCPConnector(limit=SESSIONS)) as client:
            await asyncio.gather(*(session(client, n) for n in range(SESSIONS)))  # everything is loaded once
            before, started = _resident(), time.perf_counter()
            lost = sum(await asyncio.gather(*(session(client, n) for n in range(SESSIONS))))
            seconds, grown = time.perf_counter() - started, _resident() - before
        await runner.cleanup()
        return lost, each * SESSIONS / seconds, grown

    lost, speed, grown = asyncio.run(work())
    n = (f"{SESSIONS} sessions, {max(count(REQUESTS) // SESSIONS, 8) * SESSIONS:,} steps, client and server in one "
         "process")
    return [at_most("server: steps lost", lost, 0, "", n), Row("server: steps a second", speed, "1/s", spread=n),
            at_most("server: memory grown", grown, 8.0, "MiB", n)]


def client() -> list[Row]:
    """A step as published clients take it (a request, and the page read by BeautifulSoup) over a step of the engine."""
    from bs4 import BeautifulSoup
    from bs4.element import Comment

    env = WebShop(tags="rules", browse=True, view="text_rich")
    task = env.tasks("test")[0]
    found = env.step(env.reset(task), Action("search[oak mug]")).state
    click = env.legal_actions(found)[-1]
    command = [sys.executable, "-m", "stl_programs.environments.webshop", "--port", str(port := _free_port())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url, ratios = f"http://127.0.0.1:{port}/search_results/{task.id}/oak+mug/1", []
            _wait(url)
            for _ in range(20):
                begun = time.perf_counter()
                for _ in range(10):
                    with urllib.request.urlopen(url) as reply:
                        texts = BeautifulSoup(reply.read(), "html.parser").find_all(string=True)
                    shown = [text for text in texts if text.parent is not None and not isinstance(text, Comment)
                             and text.parent.name not in ("style", "script", "head", "title", "meta")]
                theirs = time.perf_counter() - begun
                begun = time.perf_counter()
                for _ in range(10):
                    env.step(found, click)
                ratios.append(theirs / (time.perf_counter() - begun))
        finally:
            process.terminate()
    assert shown
    middle, spread = median_and_spread(ratios)
    return [Row("webshop: a step of a published client's loop over one of the engine", middle, "x", spread=spread)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.1)
    raise StlError(f"no server came up at {url}")


def _resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def tags() -> list[Row]:
    """How often the light tagger finds other nouns than spaCy, and how many rewards that changes."""
    root = os.environ.get("STL_DATA")
    if not root:
        return [Row("tagger: titles with other nouns", None, spread="not run: STL_DATA names no folder")]
    try:
        ours, theirs = RuleTagger(), tagger("spacy")
    except StlError as error:
        return [Row("tagger: titles with other nouns", None, spread=f"not run: {error}")]
    folder = Path(root) / "webshop"
    catalogue = Catalogue.load(folder / "items_shuffle_1000.json", folder / "items_ins_v2_1000.json",
                               folder / "items_human_ins.json")
    titles = [product.title for product in catalogue.products]
    remembered = {title: list(theirs.nouns(title)) for title in titles}
    other = sum(set(ours.nouns(title)) != set(remembered[title]) for title in titles)
    return [Row("tagger: titles with other nouns", other, "titles", spread=f"of {len(titles)}, against {theirs.name}"),
            _rewards(catalogue, ours, theirs)]


def _rewards(catalogue: Catalogue, ours: Tagger, theirs: Tagger) -> Row:
    rng = generator(0)
    prices = draw_prices(catalogue.products, rng)
    goals = draw_goals(catalogue.products, prices, "synthetic", rng)
    draw, purchases, differ = random.Random(1), count(10_000), 0
    for _ in range(purchases):
        goal, product = draw.choice(goals), draw.choice(catalogue.products)
        options = {name: draw.choice(values) for name, values in product.options}
        one, two = (reward(product, options, prices[product.asin], goal, who).total for who in (ours, theirs))
        differ += one != two
    return Row("tagger: rewards that differ", differ, "purchases", spread=f"of {purchases:,} random ones")


def kept() -> list[Row]:
    """An index on disk against one that is built again: both sides in one run."""
    contents = list(texts(count(20_000)))
    with tempfile.TemporaryDirectory() as place:
        folder, ratios = Path(place) / "index", []
        Index.kept(iter(contents), folder, "x")
        for _ in range(5):
            begun = time.perf_counter()
            Index.build(contents)
            built = time.perf_counter() - begun
            begun = time.perf_counter()
            Index.kept(iter(contents), folder, "x")
            ratios.append(built / (time.perf_counter() - begun))
    middle, spread = median_and_spread(ratios)
    return [Row(f"index of {len(contents):,} products: built anew over read from disk", middle, "x", spread=spread)]


def shape() -> list[Row]:
    """Bytes of the embedded worlds, and seconds to open them."""
    rows = []
    for build in (WebShop, HotpotQA):
        times: list[float] = []
        for _ in range(5):
            begun = time.perf_counter()
            env: Environment = build()
            times.append(time.perf_counter() - begun)
        middle, spread = median_and_spread(times)
        rows.append(Row(f"{env.name}: seconds to open the embedded world", middle, "s", spread=spread))
    return rows


BENCHMARKS: dict[str, Any] = {"index": index, "kept": kept, "steps": steps, "play": play, "server": server,
                              "client": client, "tags": tags, "shape": shape}

if __name__ == "__main__":
    sys.exit(main(BENCHMARKS))
