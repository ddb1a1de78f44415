"""The engine against recordings of the reference; skipped where they are not."""

from __future__ import annotations

import json
import random

import pytest

from stl_programs import WebShop
from stl_programs.environments.retrieval.analyzer import analyze
from stl_programs.environments.webshop.goals import draw_goals, draw_prices, generator
from stl_programs.environments.webshop.lexicon import COLOURS
from stl_programs.environments.webshop.reward import reward
from stl_programs.environments.webshop.shop import Session


def test_every_search_finds_the_reference_s_fifty_in_its_order(benchmark, golden):
    shop, wrong = benchmark.shop, []
    for query in golden("bm25_top50"):
        found = [(shop.order[number], round(score, 4)) for number, score in shop.index.scored(query["query"])]
        if [asin for asin, _ in found] != [asin for asin, _ in query["hits"]]:
            wrong.append(query["query"])
        assert all(abs(mine - theirs) < 2e-4 for (_, mine), (_, theirs) in zip(found, query["hits"], strict=True))
    assert not wrong


def test_the_analyzer_makes_the_reference_s_terms(benchmark, golden):
    recorded = golden("analyzer_tokens")
    products = benchmark.catalogue.by_asin
    assert not [asin for asin, terms in recorded["docs"].items() if analyze(products[asin].contents) != terms]
    queries = [query["query"] for query in golden("bm25_top50")]
    assert [analyze(query) for query in queries] == recorded["queries"]


def test_text_sessions_show_what_the_reference_shows_at_every_step(benchmark, golden):
    shop = benchmark.shop
    for recorded in golden("text_env_sessions"):
        session = Session(recorded["session"])
        for step in recorded["steps"]:
            paid = 0
            if step["action"] is not None:
                before, session = session, shop.step(session, step["action"])
                bought = session.kind == "done" and before.kind != "done"
                paid = shop.reward(session).total if bought else 0
                assert (paid, session.kind == "done") == (step["reward"], step["done"]), step["action"]
            assert shop.show(session, "text") == step["text"]
            assert shop.show(session, "text_rich") == step["text_rich"]
            assert shop.clickables(session) == step["available"]["clickables"]
            assert f"http://127.0.0.1:3000{shop.url(session)}" == step["url"]


def test_synthetic_goals_are_the_reference_s_in_its_order(benchmark, golden):
    recorded = golden("goals_first150")
    for goal, entry in zip(benchmark.goals, recorded, strict=False):
        assert (goal.asin, list(goal.attributes), dict(goal.options), goal.weight) == (
            entry["asin"], entry["attributes"], entry["goal_options"], entry["weight"])
        assert goal.text.partition(", and price lower than")[0] == entry["instruction_no_price"]
    assert len(recorded) == 150 and len(benchmark.goals) == 6910


def test_prices_and_caps_are_upstream_s_draw_for_its_generator_s_state(benchmark, golden):
    for recorded in golden("text_env_sessions"):
        goal = benchmark.goals[recorded["session"]]
        assert (goal.price_upper, goal.text) == (recorded["goal"]["price_upper"], recorded["goal"]["instruction_text"])
    products = benchmark.catalogue.products
    state = random.Random(0).getstate()  # what random.getstate() gives after random.seed(0)
    rng = generator(state)
    assert draw_goals(products, draw_prices(products, rng), "synthetic", rng) == benchmark.goals
    other = generator(1)
    assert draw_goals(products, draw_prices(products, other), "synthetic", other) != benchmark.goals


def test_human_goals_are_those_of_the_recorded_http_sessions(data, golden):
    shop = WebShop(data / "webshop", seed=0, tags="rules")
    for number, recorded in enumerate(golden("http_sessions")):
        goal = shop.goals[number]
        assert (goal.text, goal.asin, goal.price_upper, list(goal.options)) == (
            recorded["goal"]["instruction_text"], recorded["goal"]["asin"], recorded["goal"]["price_upper"],
            recorded["goal"]["goal_options"])


def test_rewards_equal_their_pseudo_code_on_random_purchases(benchmark, data):
    """Written a second time, from the files as they are, with the library that upstream compares texts by."""
    fuzz = pytest.importorskip("thefuzz.fuzz", reason="thefuzz, which upstream compares texts by, is not installed")
    folder = data / "webshop"
    raw = {item["asin"]: item for item in json.loads((folder / "items_shuffle_1000.json").read_text(encoding="utf-8"))}
    about = json.loads((folder / "items_ins_v2_1000.json").read_text(encoding="utf-8"))
    nouns, products = benchmark.tagger.nouns, benchmark.catalogue.products
    human = WebShop(folder, tags="rules").goals
    by_query: dict[str, list] = {}
    for product in products:
        by_query.setdefault(product.query, []).append(product)

    def colour(option):
        return next((one for one in COLOURS if one in option), option)

    def pseudo(asin, options, price, goal):
        item = raw[asin]
        category = ({part.strip() for part in item["product_category"].split("›")}
                    & {part.strip() for part in goal.product_category.split("›")})
        have, want = nouns(item["name"]), nouns(goal.name)
        title = len(set(have) & set(want)) / len(want) if len(want) > 0 else 0.2
        kind = 1.0 if item["query"].lower().strip() == goal.query or len(category) >= 2 or title > 0.2 else 0.5
        kind = 0.1 if title < 0.1 else kind
        kind = 0.0 if title == 0.0 else kind
        bullets = item["small_description"]
        bullets = " ".join([bullets] if isinstance(bullets, str) else bullets).lower()
        attributes = sum(
            any(fuzz.token_set_ratio(own, wanted) > 85 for own in about[asin].get("attributes", ["DUMMY_ATTR"]))
            or wanted in item["name"].lower() or wanted in bullets or wanted in item["full_description"].lower()
            for wanted in goal.attributes)
        chosen = [colour(value) for value in options.values()]
        matched = sum(any(fuzz.token_set_ratio(value, wanted) > 85 for value in chosen)
                      for wanted in map(colour, goal.options))
        cheap = price <= goal.price_upper
        return (attributes + matched + cheap) / (len(goal.attributes) + len(goal.options) + 1) * kind

    rng, seen = random.Random(7), set()
    for _ in range(10_000):
        goal = rng.choice(benchmark.goals if rng.random() < 0.7 else human)
        product = rng.choice(by_query[goal.query] if rng.random() < 0.6 else products)
        options = {name: rng.choice(values) for name, values in product.options if rng.random() < 0.8}
        price = benchmark.shop.prices[product.asin]
        mine = reward(product, options, price, goal, benchmark.tagger).total
        assert mine == pseudo(product.asin, options, price, goal), (product.asin, options, goal)
        seen.add(mine)
    assert len(seen) > 40 and {0.0, 1.0} <= seen
