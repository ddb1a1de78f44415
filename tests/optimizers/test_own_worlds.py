"""What Self-Taught Lookahead learns in own worlds: pages with their own judges, free text, a graph with cycles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.data.lookahead import lookahead
from optimizers.stl import tuned_value
from stl_programs import Judge, Tree, run_sync, run_tasks
from tests.stl_programs.environments.own_worlds.prompts import CHAT
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle
from tests.stl_programs.environments.own_worlds.puzzle import reply as slide
from tests.stl_programs.environments.own_worlds.searches import program, scripted
from tests.stl_programs.environments.own_worlds.shop import LookFromItem, LookFromPage, Shop
from tests.stl_programs.environments.own_worlds.shop import reply as shops
from tests.stl_programs.environments.own_worlds.shop_server import ShopServer
from tests.stl_programs.environments.own_worlds.word_problems import WordProblems
from tests.stl_programs.environments.own_worlds.word_problems import reply as reason


def learned(env, reply, weights, **options):
    """The data set of one iteration over the world's tasks, and the trees that it came of."""
    student = program("beam", env, scripted(reply))
    stl = SelfTaughtLookahead(weights=weights, lora=LoraSettings(), expand="all", others_per_top="all", **options)
    tasks, _ = stl.check(student, env.tasks("train"))
    results = run_sync(run_tasks(stl.roller(student), tasks, keep_trees=True))
    [dataset] = stl.datasets(student, results, 1).values()
    return dataset, [Tree.from_dict(result.tree) for result in results], student


@pytest.fixture(scope="module")
def shop(tiny_chat_model):
    with ShopServer() as server:
        yield learned(Shop(server.url), shops, tiny_chat_model)


def asked(row):
    return {name: text.strip() for name, text in CHAT.findall(row["prompt"][-1]["content"])}


def said(row):
    return {name: text.strip() for name, text in CHAT.findall(row["completion"][0]["content"])}


def test_the_best_successor_is_seen_as_that_page_alone(shop):
    dataset, trees, _ = shop
    pages = {node.state.text for tree in trees for node in tree.nodes}
    rows = [(asked(row), said(row)) for row in dataset.rows]
    fronts = [out for into, out in rows if into.get("state", "").startswith("The shop's front page")]
    assert len(fronts) == len(trees)
    for out in fronts:
        assert out["best_action"].startswith("search[") and out["next_state"].startswith("Results\n")
    for _, out in rows:
        assert out["next_state"] == "none" or out["next_state"] in pages, "a page of the shop, and nothing around it"
    deep = [into for into, _ in rows if into.get("state", "").startswith("Results")]
    assert deep and all(into["observations"].startswith("The shop's front page") for into in deep)
    for into in deep:
        assert into["last_action"].startswith(("search[", "back[")) and "click[" in into["possible_actions"]


def test_every_page_has_the_rows_of_its_own_signature(shop):
    dataset, _, student = shop
    rows = list(zip(dataset.examples, dataset.rows, strict=True))
    assert {example.page for example, _ in rows} == {None, "item"}
    for example, row in rows:
        lesson = LookFromItem if example.page == "item" else LookFromPage
        assert set(asked(row)) == set(lesson.input_fields) and set(said(row)) >= set(lesson.output_fields)
        assert lesson.instructions in row["prompt"][0]["content"].replace("\n        ", "\n")
        assert (Shop.judges["item"].scale if example.page else Shop.scale).parse(said(row)["score"]) is not None
    tuned = tuned_value(student, "hosted_vllm/m@v1", "lv+tr+r")
    assert set(tuned.predict.signature.fields) == set(LookFromPage.fields)
    assert set(tuned.pages["item"].signature.fields) == set(LookFromItem.fields)
    assert {predictor.adapter for predictor in tuned.asked} == {"hosted_vllm/m@v1"}


def test_a_judge_with_an_offset_learns_what_it_adds(shop):
    dataset, trees, _ = shop
    by_key = {(tree.task.id, node.state.key): node for tree in trees for node in tree.nodes}
    items = [(example, row) for example, row in zip(dataset.examples, dataset.rows, strict=True)
             if example.page == "item" and not example.terminal]
    assert items
    for example, row in items:
        node = by_key[example.task, example.key]
        added = max(child.estimate.score for child in trees_of(trees, example.task).children(node)) - example.before
        nearest = min((("nearer", 2.0), ("same", 0.0), ("farther", -4.0)), key=lambda word: abs(word[1] - added))
        assert said(row)["score"] == nearest[0]


def trees_of(trees, task):
    return next(tree for tree in trees if tree.task.id == task)


def test_an_irreversible_end_is_learned_from_and_never_taken(shop):
    dataset, trees, _ = shop
    ends = [example for example in dataset.examples if example.terminal]
    assert ends and all("(chosen, and not taken yet: buy[])" in example.state for example in ends)
    assert any(example.action == "buy[]" and "(chosen, and not taken yet: buy[])" in example.next_state
               for example in dataset.examples)
    assert all(tree.about["untaken"] == "buy[]" for tree in trees)


def test_a_judge_without_lookahead_makes_no_rows_and_the_manifest_says_so(tiny_chat_model):
    class Quiet(Shop):
        judges: Mapping[str, Judge] = {"item": replace(Shop.judges["item"], lookahead=None)}

    with ShopServer() as server:
        dataset, _, student = learned(Quiet(server.url), shops, tiny_chat_model)
    assert {example.page for example in dataset.examples} == {None}
    assert dataset.manifest["dropped"]["page 'item': its judge has no lookahead signature"] > 0
    tuned = tuned_value(student, "hosted_vllm/m@v1", "lv+tr+r")
    assert tuned.pages["item"].adapter is None, "that page is judged as before"


def test_one_row_per_task_and_state(tiny_chat_model):
    dataset, trees, _ = learned(WordProblems(), reason, tiny_chat_model)
    rows = Counter((example.task, example.key) for example in dataset.examples)
    assert set(rows.values()) == {1} and {task for task, _ in rows} == {tree.task.id for tree in trees}
    roots = [example for example in dataset.examples if example.key == ""]
    assert len(roots) == len(trees), "equal keys of different tasks stay apart"
    steps = [row for example, row in zip(dataset.examples, dataset.rows, strict=True) if example.depth == 1]
    assert steps and all("\n" in asked(row)["state"] for row in steps), "steps of two lines survive the trip"
    for row in map(said, steps):
        assert row["next_state"] in ("none", row["best_action"])


def test_where_values_do_not_depend_on_the_task_a_state_has_one_row(tiny_chat_model):
    dataset, trees, _ = learned(Puzzle(), slide, tiny_chat_model)
    keys = [example.key for example in dataset.examples]
    assert len(keys) == len(set(keys)) and dataset.manifest["dropped"]["a newer label of the same state"] > 0
    met = Counter(key for tree in trees for key in {node.state.key for node in tree.nodes if node.expanded})
    assert max(met.values()) > 1, "several tasks met one board"


def test_in_a_graph_with_cycles_nothing_leads_back(tiny_chat_model):
    _, trees, _ = learned(Puzzle(), slide, tiny_chat_model)
    examples, dropped = lookahead(trees)
    on_the_way = {(tree.task.id, node.id): {step.state.key for step in tree.path(node)}
                  for tree in trees for node in tree.nodes}
    for tree in trees:
        for node in tree.nodes:
            assert len(on_the_way[tree.task.id, node.id]) == node.depth + 1
    assert examples and "not all successors are known and judged" not in dropped


def test_a_nested_rationale_is_a_choice():
    from stl_programs.predictor import Draw
    from stl_programs.values.sampled import read_sample

    draw = Draw({"best_action": "click[B4]", "next_state": "a page", "rationale": "it fits", "score": "7"})
    scale = Puzzle.scale
    assert read_sample(draw, scale).rationale == "click[B4] -> a page . it fits"
    assert read_sample(draw, scale, "innermost").rationale == "it fits"
