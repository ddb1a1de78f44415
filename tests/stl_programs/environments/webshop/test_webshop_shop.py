"""The embedded shop as a world, and its parts on their own."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import Action, WebShop, check_environment
from stl_programs.environments import sealed_reward
from stl_programs.environments.retrieval.analyzer import analyze, stem, tokens
from stl_programs.environments.retrieval.index import Index
from stl_programs.environments.webshop.pages import NEXT, PREVIOUS, Node, compact, rich
from stl_programs.environments.webshop.reward import alike, normal_colour
from stl_programs.environments.webshop.shop import parse_action
from stl_programs.environments.webshop.tagger import RuleTagger
from stl_programs.errors import RewardSealed, TaskError
from stl_programs.situations import Situation


def walk(env, task, *actions):
    state = env.reset(task)
    for text in actions:
        state = env.step(state, env.action(state, text)).state
    return state


def target(env, task):
    """The product that a goal was made from, and the options that it asks for."""
    goal = env.goals[int(task.id.removeprefix("fixed_"))]
    product = env.catalogue.by_asin[goal.asin]
    return product, {name: value for name, values in product.options for value in values if value in goal.options}


def test_the_check_finds_nothing_to_mend(shop):
    assert not check_environment(shop, plays=20)
    assert not check_environment(WebShop(goals="synthetic", browse=True, attributes_page=True, view="text_rich",
                                         tags="rules"), plays=20, process=False)


def test_buying_what_was_asked_for_is_worth_all_and_anything_else_less(shop):
    worth = []
    for task in shop.tasks("test"):
        product, options = target(shop, task)
        assert shop.score(task, json.dumps({"asin": product.asin, "options": options})) == 1.0
        other = next(one for one in shop.catalogue.products if one.query != product.query)
        worth.append(shop.score(task, json.dumps({"asin": other.asin, "options": {}})))
    assert len(worth) == 100 and max(worth) < 1.0


def test_a_search_judges_the_purchase_and_commit_takes_it(shop):
    task = shop.tasks("test")[0]
    product, _ = target(shop, task)
    state = walk(shop, task, f"search[{task.text}]", f"click[{product.asin}]")
    buy = shop.action(state, "click[Buy Now]")
    assert buy.irreversible and buy.text == "click[buy now]"
    leaf = dict(shop.successors(state))[buy]
    assert leaf.terminated and leaf.state.untaken and "not taken yet" in leaf.state.text
    assert json.loads(shop.answer(task, leaf.state)) == {"asin": product.asin, "options": {}}
    assert shop.answer(task, state) == "" and shop.score(task, "") == 0.0
    done = shop.step(state, buy).state
    assert done.terminal and done.text == f"Your score (min 0.0, max 1.0): {shop.score(task, shop.answer(task, done))}"
    with sealed_reward(), pytest.raises(RewardSealed):
        shop.score(task, shop.answer(task, leaf.state))


def test_branches_share_nothing(shop):
    task = next(task for task in shop.tasks("test") if len(target(shop, task)[0].options) == 2)
    product, _ = target(shop, task)
    state = walk(shop, task, f"search[{product.title}]", f"click[{product.asin.lower()}]")
    (first, values), (second, others) = product.options
    here, there = (shop.step(state, Action(f"click[{value}]")).state for value in values[:2])
    both = shop.step(here, Action(f"click[{others[0]}]")).state
    assert here.data.options == ((first, values[0]),) and there.data.options == ((first, values[1]),)
    assert both.data.options == ((first, values[0]), (second, others[0])) and state.data.options == ()
    again = shop.step(both, Action(f"click[{values[1]}]")).state
    assert dict(again.data.options) == {first: values[1], second: others[0]}
    assert f"[[{values[0]}]]" in here.text and f"[[{values[0]}]]" not in again.text
    assert f"click[{values[1]}]" not in [action.text for action in shop.legal_actions(again)]


def test_a_selected_option_is_judged_by_its_own_judge_where_that_is_wanted(shop):
    assert not shop.judges
    shop = WebShop(tags="rules", judge_options=True)
    task = next(task for task in shop.tasks("test") if target(shop, task)[0].options)
    product, _ = target(shop, task)
    situation = Situation(shop, task, shop.reset(task))
    value = product.options[0][1][0]
    pages = []
    for text in (f"search[{product.title}]", f"click[{product.asin}]", f"click[{value}]", "click[description]"):
        action = shop.action(situation.state, text)
        situation = situation.then(action, shop.step(situation.state, action))
        pages.append(shop.page(situation))
    assert pages == [None, None, "option", None]
    assert shop.judges["option"].offset and shop.judges["option"].scale.parse("4") == 2.0


@pytest.mark.parametrize("text", ["click[nothing of that]", "click[search]", "click[buy now]", "search[]", "think[x]",
                                  "search[a [b] c]", "click[< prev]"])
def test_what_the_first_page_does_not_have_changes_nothing(shop, text):
    state = shop.reset(shop.tasks("test")[0])
    after = shop.step(state, Action(text)).state
    assert (after.key, after.text, after.terminal) == (state.key, state.text, False)


@pytest.mark.parametrize("text", ["buy the mug", "", "open[z]", "click", "click[]"])
def test_what_is_no_action_is_refused_in_a_line(shop, text):
    with pytest.raises(TaskError, match="neither search") as refused:
        shop.action(shop.reset(shop.tasks("test")[0]), text)
    assert "\n" not in str(refused.value)


def test_pages_of_results_go_on_without_end_and_back_to_the_first(shop):
    task = shop.tasks("test")[0]
    state = walk(shop, task, "search[free]", *["click[next >]"] * 7)
    assert "Page 8 (Total results: 44)" in state.text and state.data.number == 8
    assert [node.text for node in shop.shop.page(state.data)[:6] if node.text in (NEXT, PREVIOUS)] == [PREVIOUS, NEXT]
    back = walk(shop, task, "search[free]", *["click[next >]"] * 7, *["click[< prev]"] * 7)
    assert back.key == walk(shop, task, "search[free]").key


def test_the_way_back_from_pages_keeps_or_clears_the_options(shop):
    task = next(task for task in shop.tasks("test") if target(shop, task)[0].options)
    product, _ = target(shop, task)
    value = product.options[0][1][0]
    path = [f"search[{product.title}]", f"click[{product.asin}]", f"click[{value}]"]
    chosen = walk(shop, task, *path)
    assert walk(shop, task, *path, "click[features]", "click[< prev]").key == chosen.key
    assert walk(shop, task, *path, "click[< prev]").key == walk(shop, task, path[0]).key
    assert walk(shop, task, *path, "click[back to search]").key == shop.reset(task).key


def test_a_goal_is_named_by_number_or_text(shop):
    task = shop.task("3")
    assert task == shop.task("fixed_3") and shop.task(task.text) == task
    for wrong in ("250", "fixed_9999999", "-1", "a golden boat", "fixed_x"):
        with pytest.raises(TaskError, match=r"no goal|no instruction") as refused:
            shop.task(wrong)
        assert "250" in str(refused.value)
    with pytest.raises(TaskError, match="no split"):
        shop.tasks("dev")
    assert [len(shop.tasks(split)) for split in ("test", "validation", "train")] == [100, 50, 100]


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_random_play_replays_to_equal_states(shop, seed):
    rng = random.Random(seed)
    task = rng.choice(shop.tasks(rng.choice(("train", "test"))))
    state, path = shop.reset(task), []
    words = ["mug", "soft pillow", "gluten free", "ünï ★", "a" * 300]
    while len(path) < 8 and not state.terminal:
        offered = [*shop.shop.clickables(state.data), *(f"s:{word}" for word in words), "no such thing"]
        text = rng.choice(offered)
        path.append(Action(f"search[{text[2:]}]" if text.startswith("s:") else f"click[{text}]"))
        state = shop.step(state, path[-1]).state
        assert all(shop.shop.show(state.data, view) for view in ("text", "text_rich", "compact"))
    again = shop.reset(task)
    for action in path:
        again = shop.step(again, action).state
    assert (again.key, again.text, again.history) == (state.key, state.text, state.history)
    assert 0.0 <= shop.score(task, shop.answer(task, state)) <= 1.0


PLAY = """
import hashlib, random
from stl_programs import Action, WebShop
shop, rng, seen = WebShop(tags="rules"), random.Random(5), hashlib.sha256()
for _ in range(300):
    task = rng.choice(shop.tasks("train"))
    state = shop.reset(task)
    while not state.terminal and len(state.history) < shop.max_depth:
        action = rng.choice(shop.legal_actions(state))
        state = shop.step(state, action).state
        seen.update((state.key + state.text).encode())
    seen.update(repr(shop.score(task, shop.answer(task, state))).encode())
print(seen.hexdigest())
"""


def test_two_processes_see_the_same():
    said = {subprocess.run([sys.executable, "-c", PLAY], capture_output=True, text=True, check=True,
                           env={"PYTHONHASHSEED": str(seed), "PATH": ""}).stdout for seed in (1, 2)}
    assert len(said) == 1 and len(said.pop()) == 65


def test_the_shop_goes_to_another_process_and_says_what_it_is(shop):
    other = pickle.loads(pickle.dumps(shop))
    assert other.provenance == shop.provenance == shop.identity()["provenance"]
    assert "400 products" in shop.provenance and "250 human goals" in shop.provenance and "rules" in shop.provenance
    assert WebShop(seed=1, tags="rules").provenance != shop.provenance


def test_a_catalogue_s_index_is_kept_on_disk_and_read_again(tmp_path, shop):
    first = WebShop(tags="rules", cache=tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = WebShop(tags="rules", cache=tmp_path)
    assert written and {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written
    query = "gluten free oat bars with berries"
    assert first.shop.index.scored(query) == second.shop.index.scored(query) == shop.shop.index.scored(query)
    next(tmp_path.rglob("documents.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(TaskError, match="damaged"):
        WebShop(tags="rules", cache=tmp_path)
    assert not list(tmp_path.rglob("*.pkl"))


# Parts

def test_search_ranks_by_score_then_by_place():
    index = Index.build(["red mug", "blue mug mug", "red red mug", "blue mug mug", ""])
    assert index.search("blue mugs", 5) == [1, 3, 0, 2]
    assert index.search("the of", 5) == [] == Index.build([]).search("mug")


@given(st.lists(st.text(alphabet="ab c", max_size=12), max_size=12), st.text(alphabet="abc ", max_size=12),
       st.integers(1, 5))
@settings(deadline=None)
def test_fewer_results_are_the_first_of_more(texts, query, most):
    index = Index.build(texts)
    assert index.search(query, most) == index.search(query, 100)[:most]


def test_words_are_those_of_the_standard():
    assert tokens("U.S.A. 3.14 a:b x-large 10% l'été don't") == [
        "U.S.A", "3.14", "a:b", "x", "large", "10", "l'été", "don't"]
    assert tokens("★ 👨‍💼 漢字 カタカナ ®") == ["★", "👨‍💼", "漢", "字", "カタカナ", "®"]
    assert analyze("The John's and the dogs'") == ["john", "dog"]


@pytest.mark.parametrize("word, wanted", [("possibly", "possibl"), ("technology", "technolog"), ("visible", "visibl"),
                                          ("running", "run"), ("is", "is"), ("compatibly", "compat")])
def test_stems_are_martin_porter_s_later_ones(word, wanted):
    assert stem(word) == wanted


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_analyzed_in_linear_time_and_without_error(text):
    assert all(analyze(text)) and parse_action(text) is not None
    assert len(tokens(text * 50)) <= 50 * len(text)


def test_actions_are_taken_apart_as_upstream_does():
    assert parse_action("search[red mug] please") == ("search", "red mug")
    assert parse_action("search[a [b] c]") == ("search[a ", "b] c")
    assert parse_action("click[x]\nclick[y]") == ("click", "x")
    assert parse_action("think") == ("think", "") and parse_action("[x]") == ("[x]", "")
    assert parse_action("a[]") == ("a[]", "") and parse_action("a[]]") == ("a", "]")


def test_options_match_by_words_and_colours():
    assert alike("x-large", "large") and not alike("small", "large")
    assert normal_colour("dark navy") == "dark" and normal_colour(("color", "red")) == "red"
    assert normal_colour(("color", "dark red")) == ("color", "dark red") and alike("red", ("color", "red"))


def test_the_light_tagger_leaves_out_what_is_no_noun():
    name = "Holgate Premium Mug with Handle, very large and dishwasher-safe (12oz, Pack of 2) for women's 3D"
    nouns = RuleTagger().nouns(name)
    assert nouns == ["holgate", "premium", "mug", "handle", "dishwasher", "safe", "oz", "pack", "women", "3d"]


def test_views_show_choices_and_visits():
    page = (Node("text", "Instruction:"), Node("text", "buy"), Node("button", "Buy Now"), Node("text", "size"),
            Node("value", "big", "size"), Node("value", '5" wide', "size"), Node("product", "Z1"))
    assert rich(page, '/{"size": "big"}', ["Z1"]).startswith("You have clicked big.\nInstruction:\nbuy\n")
    assert "[clicked button] Z1" in rich(page, "/", ["Z1"]) and "[button] Z1" in rich(page, "/", [])
    assert "[clicked" not in rich(page, '/{"size": "5\\" wide"}', [])
    assert compact(page, "/{'size': 'big'}") == "\n[Buy Now] \nsize [[big]][5\" wide]\n[Z1] "
