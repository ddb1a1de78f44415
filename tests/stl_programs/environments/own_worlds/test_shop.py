"""An own world behind HTTP: judges per page, free text, steps that fail for a while, an end that cannot be undone."""

from __future__ import annotations

import json

import pytest

from stl_programs import GreedySearch, LegalMoves, Policy, Tree, Value, run_sync, run_tasks
from stl_programs.errors import JournalError, StlError
from tests.stl_programs.environments.own_worlds.prompts import CHAT
from tests.stl_programs.environments.own_worlds.searches import SEARCHES, program, scripted
from tests.stl_programs.environments.own_worlds.shop import JudgeItem, Shop, reply
from tests.stl_programs.environments.own_worlds.shop_server import SMALL_PRINT, ShopServer

ORDER = "Buy a red mug under 15 dollars"


@pytest.fixture
def server():
    with ShopServer() as running:
        yield running


def asked(model):
    """The inputs of every request, by name."""
    return [dict(CHAT.findall(text.encode().decode("unicode_escape").rpartition("'content': ")[2]))
            for text, _ in model.requests]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_finds_the_item_and_buys_nothing(server, name):
    env, model = Shop(server.url), scripted(reply)
    tasks = env.tasks("test")[:2]
    results = run_sync(run_tasks(program(name, env, model), tasks, keep_trees=True))
    assert [result.error for result in results] == [None] * len(tasks)
    assert sum(env.score(task, result.answer) for task, result in zip(tasks, results, strict=True)) == len(tasks)
    assert [result.untaken for result in results] == ["buy[]"] * len(tasks) and server.counts["buy"] == 0
    for result in results:
        tree = Tree.from_dict(result.tree)
        bought = [node for node in tree.nodes if node.action == "buy[]"]
        assert bought and all(node.state.untaken and node.state.terminal for node in bought)
        assert tree.nodes[tree.about["chosen"]].estimate.score is not None, "the leaf that was not taken is judged"
        assert result.usage["policy (refused actions)"]["samples"] > 0, "buy[] on the front page, click[nothing]"
        assert result.usage["environment"]["steps"] > 0


def test_the_chosen_purchase_is_sent_once_and_only_when_it_is_wanted(server):
    search = program("greedy", Shop(server.url), scripted(reply))
    seen = search(task=ORDER)
    assert seen.untaken == "buy[]" and server.counts["buy"] == 0
    done = search(task=ORDER, commit=True)
    assert done.untaken is None and done.answer == seen.answer and server.counts["buy"] == 1
    assert done.tree.nodes[done.tree.about["chosen"]].state.text == "Thank you for your order."


def test_a_journal_keeps_the_purchase_and_every_step(server, tmp_path):
    env, model = Shop(server.url), scripted(reply)
    search, tasks = program("beam", env, model), env.tasks("test")
    first = run_sync(run_tasks(search, tasks, journal=tmp_path / "j", commit=True))
    sent, calls = server.counts["requests"], len(model.requests)
    assert [result.committed for result in first] == ["buy[]"] * len(tasks) and server.counts["buy"] == len(tasks)
    again = run_sync(run_tasks(search, tasks, journal=tmp_path / "j", commit=True))
    assert again == first and (server.counts["requests"], len(model.requests)) == (sent, calls)
    kept = [line for line in (tmp_path / "j").read_text().splitlines() if '"result"' not in line[:12]]
    (tmp_path / "steps").write_text("\n".join(kept) + "\n")
    without = run_sync(run_tasks(search, tasks, journal=tmp_path / "steps", commit=True))
    assert [result.answer for result in without] == [result.answer for result in first]
    assert (server.counts["requests"], len(model.requests)) == (sent, calls), "the searches ran again, on the journal"


def test_a_purchase_that_may_have_been_sent_is_not_sent_again(server, tmp_path):
    class Cut(Shop):
        async def commit(self, task, state, action):
            await super().commit(task, state, action)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sync(run_tasks(program("greedy", Cut(server.url), scripted(reply)), [ORDER], journal=tmp_path / "j",
                           commit=True))
    [result] = run_sync(run_tasks(program("greedy", Shop(server.url), scripted(reply)), [ORDER],
                                  journal=tmp_path / "j", commit=True))
    assert server.counts["buy"] == 1 and "begun by an earlier run" in result.error
    assert issubclass(JournalError, StlError)


def test_the_value_sees_pages_last_action_and_possible_actions(server):
    model = scripted(reply)
    outcome = program("greedy", Shop(server.url), model)(task=ORDER)
    results = [fields for fields in asked(model) if fields.get("last_action", "").strip() == "search[red mug]"]
    assert results and "possible_actions" in results[0]
    [front] = {fields["observations"].strip() for fields in results}
    assert front == f"The shop's front page. {SMALL_PRINT}"
    assert "click[B4]" in results[0]["possible_actions"] and results[0]["state"].startswith("Results")
    for node in outcome.tree.nodes:
        assert node.state.text.count("The shop's front page") == (1 if node.depth == 0 else 0), "a page holds a page"


def test_an_item_is_judged_in_its_own_way_by_what_it_adds(server):
    model = scripted(reply)
    outcome = program("greedy", Shop(server.url), model)(task=ORDER)
    tree = outcome.tree
    [results] = [node for node in tree.nodes if node.action == "search[red mug]"]
    scores = {node.action: node.estimate.score for node in tree.children(results)}
    assert results.estimate.score == 5.0 and scores["click[B4]"] == 7.0
    assert scores["click[B0]"] == 1.0, "5 - 4, on the world's scale"
    [bought] = [node for node in tree.nodes if node.action == "buy[]" and node.parent == tree.path(
        tree.nodes[tree.about["chosen"]])[-2].id]
    assert bought.estimate.score == 9.0, "what the item is worth, and nearer by 2"
    items = [fields for fields in asked(model) if "item" in fields]
    assert items and all(set(fields) == {"task", "item"} for fields in items), "and asked for nothing else"
    assert set(JudgeItem.input_fields) == {"task", "item"}


def test_a_value_without_the_worlds_judges_says_so(server):
    env, model = Shop(server.url), scripted(reply)
    search = GreedySearch(env, Policy(env.policy_signature, model, count=3), Value(env.value_signature, model))
    [result] = run_sync(run_tasks(search, [ORDER]))
    assert "build it with Value(..., judges=env.judges)" in result.error


def test_busy_answers_are_sent_again_and_billed():
    with ShopServer(busy_every=9) as server:
        env = Shop(server.url)
        env.retries = 9  # a step goes the whole way again, so that one busy answer on the way fails it
        search = program("beam", env, scripted(reply))
        results = run_sync(run_tasks(search, env.tasks("test"), backoff=0.001))
        busy = server.counts["requests"] // 9
    assert [result.error for result in results] == [None] * 4 and busy > 5
    bills = [result.usage["environment"] for result in results]
    assert sum(bill["failed_calls"] for bill in bills) == busy
    assert sum(bill["steps"] for bill in bills) > sum(bill["failed_calls"] for bill in bills)


def test_a_shop_that_stays_busy_fails_its_tasks_and_no_other():
    with ShopServer(busy_every=1) as server:
        results = run_sync(run_tasks(program("greedy", Shop(server.url), scripted(reply)), [ORDER], backoff=0.001))
    assert results[0].error == "StlError: the reset of shop failed: the shop is busy: busy (sent 3 times)"


def test_an_error_of_the_shop_is_its_tasks_with_its_traceback(server):
    class Broken(Shop):
        async def astep(self, state, action):
            if action.text == "click[B4]":
                raise ZeroDivisionError("no such shelf")
            return await super().astep(state, action)

    env = Broken(server.url)
    results = run_sync(run_tasks(program("greedy", env, scripted(reply)), env.tasks("test")))
    failed = {result.task: result for result in results if result.error}
    assert ORDER in failed and len(failed) < len(results) == 4
    assert "no such shelf" in failed[ORDER].error and "astep" in failed[ORDER].traceback
    assert "\n" not in failed[ORDER].error


def test_actions_in_free_text_cannot_be_listed(server):
    env = Shop(server.url)
    with pytest.raises(StlError, match="the actions of shop cannot be listed, so LegalMoves"):
        GreedySearch(env, LegalMoves(), Value(env.value_signature, scripted(reply), judges=env.judges))(task=ORDER)
    assert server.counts["requests"] == 0


def test_a_saved_program_keeps_its_judges(server, tmp_path):
    env, model = Shop(server.url), scripted(reply)
    program("greedy", env, model).save(tmp_path / "shop.json")
    loaded = GreedySearch(env, Policy(env.policy_signature, model), Value(env.value_signature, model))
    loaded.load(tmp_path / "shop.json")
    for predictor in loaded.predictors_asked():
        predictor.lm = model
    assert loaded(task=ORDER).answer == program("greedy", env, model)(task=ORDER).answer
    assert loaded.value.offsets == ["item"] and json.loads((tmp_path / "shop.json").read_text())["kind"]
