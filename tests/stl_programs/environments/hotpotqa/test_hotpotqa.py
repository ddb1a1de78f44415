"""Questions over an offline wiki: the embedded one, and files of the data set where STL_DATA says they are."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.hotpotqa.make_wiki import make
from stl_programs import Action, HotpotQA, check_environment
from stl_programs.environments import sealed_reward
from stl_programs.environments.hotpotqa import Wiki, exact_match, f1, normal, read_questions
from stl_programs.environments.hotpotqa.questions import EMBEDDED, from_hub, published_order
from stl_programs.environments.hotpotqa.world import NO_MORE, START
from stl_programs.errors import RewardSealed, TaskError
from stl_programs.situations import Situation


@pytest.fixture(scope="module")
def quiz() -> HotpotQA:
    return HotpotQA()


def walk(env, task, *actions):
    state = env.reset(task)
    for text in actions:
        state = env.step(state, Action(text)).state
    return state


def small(**settings) -> HotpotQA:
    """A wiki of a few pages of known words."""
    env = HotpotQA(**settings)
    env.wiki = Wiki({
        "Mull": ["Mull is a river.", "The river is long.", "Boats sail.", "A river has fish.", "Old maps.",
                 "Sixth one."],
        "Mull Bridge": ["A bridge over the Mull."], "Empty": [], "Hask": ["Hask is a land."]})
    return env


def test_the_check_finds_nothing_to_mend(quiz):
    assert not check_environment(quiz, plays=20)


def test_a_found_page_shows_its_first_five_sentences(quiz):
    env = small()
    assert walk(env, env.tasks("test")[0], "search[mull]").text == (
        "Mull is a river. The river is long. Boats sail. A river has fish. Old maps.")
    assert "empty" in walk(env, env.tasks("test")[0], "search[Empty]").text


def test_a_page_that_is_not_there_names_similar_titles_and_leaves_the_open_one():
    env = small()
    task = env.tasks("test")[0]
    state = walk(env, task, "search[Mull]", "search[the bridge of Mull]")
    assert state.text == "Could not find the bridge of Mull. Similar: ['Mull Bridge', 'Mull']."
    assert walk(env, task, "search[Mull]", "search[the bridge of Mull]", "lookup[fish]").text == (
        "(Result 1 / 1) A river has fish.")
    assert [text for text in env.suggestions(state) if "Bridge" in text] == ["search[Mull Bridge]"]


def test_look_ups_go_on_from_where_they_are_and_begin_anew_with_another_word():
    env = small(max_depth=10)
    task = env.tasks("test")[0]
    seen = [walk(env, task, "search[Mull]", *["lookup[River]"] * times).text for times in (1, 2, 3, 4, 5)]
    assert seen == ["(Result 1 / 3) Mull is a river.", "(Result 2 / 3) The river is long.",
                    "(Result 3 / 3) A river has fish.", NO_MORE, NO_MORE]
    assert walk(env, task, "search[Mull]", "lookup[river]", "lookup[boat]", "lookup[river]").text == seen[0]
    assert walk(env, task, "lookup[river]").text == NO_MORE


def test_branches_do_not_share_the_cursor():
    env = small(max_depth=10)
    state = walk(env, env.tasks("test")[0], "search[Mull]", "lookup[river]")
    one = env.step(state, Action("lookup[river]")).state
    other = env.step(state, Action("lookup[boats]")).state
    again = env.step(state, Action("lookup[river]")).state
    assert one.text == again.text == "(Result 2 / 3) The river is long." and one.key == again.key
    assert other.text == "(Result 1 / 1) Boats sail." and state.data.looked_up == 1


def test_the_last_step_must_be_the_answer(quiz):
    task = quiz.tasks("test")[0]
    state = walk(quiz, task, "search[a]", "search[b]", "search[c]")
    for text in ("search[d]", "lookup[e]"):
        with pytest.raises(TaskError, match="must be finish"):
            quiz.step(state, Action(text))
    assert all(action.text.startswith("finish[") for action in quiz.legal_actions(state))
    assert "last step" in quiz.fields(Situation(quiz, task, state))["steps_left"]
    done = quiz.step(state, Action("finish[Ember]")).state
    assert done.terminal and quiz.answer(task, done) == "Ember" and not quiz.legal_actions(done)
    with pytest.raises(TaskError, match="nothing more"):
        quiz.step(done, Action("finish[x]"))


@pytest.mark.parametrize("text", ["", "think[x]", "search[]", "search", "finish[ ]", "lookup[a]\nsearch[b]",
                                  "search[" + "x" * 600 + "]"])
def test_what_is_no_action_is_refused_in_a_line(quiz, text):
    with pytest.raises(TaskError, match="no action") as refused:
        quiz.action(quiz.reset(quiz.tasks("test")[0]), text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_answers_are_compared_as_the_data_set_does():
    assert normal("The  Salt-Road, a tale!") == "saltroad tale"
    assert exact_match("an Ember.", "ember") and not exact_match("Ember river", "Ember")
    assert f1("the river Ember", "Ember") == pytest.approx(2 / 3)
    assert f1("yes", "yes it is") == 0.0 == f1("no", "yes") == f1("x", "noanswer") and f1("Yes", "yes") == 1.0
    assert f1("", "") == 0.0 == f1("", "x")


def test_every_answer_of_the_embedded_wiki_is_known_and_scored(quiz):
    for split in ("train", "validation", "test"):
        for task in quiz.tasks(split):
            right = quiz.questions[task.id].answer
            assert quiz.score(task, right) == 1.0 == quiz.f1(task, right)
            assert quiz.score(task, "") == 0.0 == quiz.score(task, right + " or not")
    with sealed_reward():
        for ask in (quiz.score, quiz.f1, quiz.to_judge):
            with pytest.raises(RewardSealed):
                ask(task, "x")


def test_models_do_not_see_the_answer(quiz):
    task = quiz.tasks("test")[0]
    fields = quiz.fields(Situation(quiz, task, quiz.reset(task)))
    said = json.dumps({name: value() if callable(value) else value for name, value in fields.items()})
    assert quiz.questions[task.id].answer not in said and START in said


def test_possible_next_actions_come_from_the_state(quiz):
    task = next(task for task in quiz.tasks("test") if "band" in task.text)
    root = Situation(quiz, task, quiz.reset(task))
    band = quiz.fields(root)["possible_next_actions"]()[0]
    action = quiz.action(root.state, band)
    here = root.then(action, quiz.step(root.state, action))
    following = quiz.fields(here)["possible_next_actions"]()
    assert following[-1] == "finish[answer]" and any(text.startswith("search[") for text in following)
    assert any(text.startswith("lookup[") for text in following) and band not in following


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_random_play_replays_to_equal_states(quiz, seed):
    rng = random.Random(seed)
    task = rng.choice(quiz.tasks(rng.choice(("train", "test"))))
    state = quiz.reset(task)
    while not state.terminal:
        state = quiz.step(state, rng.choice(quiz.legal_actions(state))).state
    again = walk(quiz, task, *state.history)
    assert (again.key, again.text, again.data) == (state.key, state.text, state.data)
    assert 0.0 <= quiz.score(task, quiz.answer(task, state)) <= 1.0 and len(state.history) <= quiz.max_depth


PLAY = """
import hashlib, random
from stl_programs import HotpotQA
quiz, rng, seen = HotpotQA(), random.Random(5), hashlib.sha256()
for _ in range(500):
    task = rng.choice(quiz.tasks("train"))
    state = quiz.reset(task)
    while not state.terminal:
        state = quiz.step(state, rng.choice(quiz.legal_actions(state))).state
    seen.update((state.key + repr(quiz.score(task, quiz.answer(task, state)))).encode())
print(seen.hexdigest())
"""


def test_two_processes_see_the_same():
    said = {subprocess.run([sys.executable, "-c", PLAY], capture_output=True, text=True, check=True,
                           env={"PYTHONHASHSEED": str(seed), "PATH": ""}).stdout for seed in (1, 2)}
    assert len(said) == 1 and len(said.pop()) == 65


def test_the_world_goes_to_another_process_and_says_what_it_is(quiz):
    other = pickle.loads(pickle.dumps(quiz))
    assert other.provenance == quiz.provenance and "253 questions" in quiz.provenance
    assert quiz.restore(("search[x]",), quiz.record(quiz.step(quiz.reset(quiz.tasks("test")[0]), Action("search[x]")))
                        ).state.data == walk(quiz, quiz.tasks("test")[0], "search[x]").data


def test_the_embedded_wiki_is_what_the_script_writes():
    assert json.loads(EMBEDDED.read_text(encoding="utf-8")) == make(0)


@pytest.mark.parametrize("content, said", [
    ("", "cannot|not a file"), ("[]", "not a list of questions"), ("{}", "not a list of questions"),
    ('[{"question": "x"}]', "answer is missing"), ('[{"question": 1, "answer": "x"}]', "question"),
    ('[{"question": "x", "answer": "y", "context": {"title": ["a"], "sentences": []}}]', "context"),
    ('[{"question": "x", "answer": "y", "context": [["a"]]}]', "context"),
    ('[{"question": "x", "answer": "y"}]', "no pages"), ('[{"question": "x", "answer": "y"', "not a file"),
    ('[{"_id": "q", "question": "x", "answer": "y", "context": [["a", ["b"]]]},'
     ' {"_id": "q", "question": "z", "answer": "y"}]', "id twice")])
def test_files_of_another_form_are_one_line(tmp_path, content, said):
    (tmp_path / "data.json").write_text(content, encoding="utf-8")
    with pytest.raises(TaskError, match=said) as refused:
        HotpotQA(tmp_path / "data.json")
    assert "\n" not in str(refused.value) and "data.json" in str(refused.value)
    with pytest.raises(TaskError, match=r"missing\.json"):
        HotpotQA(tmp_path / "missing.json")
    with pytest.raises(TaskError, match="not a corpus"):
        (tmp_path / "corpus.json").write_text('{"a": "b"}', encoding="utf-8")
        HotpotQA(wiki=tmp_path / "corpus.json")


def test_a_question_is_named_by_id_or_wording(quiz):
    task = quiz.task("q007")
    assert quiz.task(task.text) == task
    for wrong in ("q999", "What?"):
        with pytest.raises(TaskError, match="no question"):
            quiz.task(wrong)
    with pytest.raises(TaskError, match="no split"):
        quiz.tasks("dev")


def test_the_index_of_many_pages_is_kept_on_disk(tmp_path, monkeypatch):
    from stl_programs.environments.hotpotqa import wiki

    monkeypatch.setattr(wiki, "IN_MEMORY", 2)
    pages = {"A": ["red mug"], "B": ["blue mug"], "C": ["green"]}
    assert Wiki(pages, tmp_path).similar("blue mugs") == Wiki(pages, tmp_path).similar("blue mugs") == ["B", "A"]
    assert (tmp_path / "index.json").exists()


def test_a_data_sets_table_is_read_as_its_file(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"id": "a1", "question": "Which?", "answer": "That", "type": "bridge", "level": "hard",
             "context": {"title": ["T", "U"], "sentences": [["One.", " Two."], ["Three."]]}}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "table"))
    questions, pages = from_hub(name=str(tmp_path / "table"))
    (tmp_path / "file.json").write_text(json.dumps(rows), encoding="utf-8")
    assert (questions, pages) == read_questions(tmp_path / "file.json")
    env = HotpotQA.from_hub(name=str(tmp_path / "table"))
    assert walk(env, env.task("a1"), "search[t]").text == "One. Two."


def test_the_published_order_is_that_of_the_papers():
    order = published_order()
    shuffled = list(range(7405))
    random.Random(233).shuffle(shuffled)
    assert order == shuffled


@pytest.mark.parametrize("name, pages", [("hotpot_dev_distractor_first100.json", 991),
                                         ("hotpot_dev_distractor_reflexion100.json", 1000),
                                         ("hotpotqa_train100.json", 994)])
def test_files_of_the_data_set_load_and_play(data, name, pages):
    env = HotpotQA(data / "hotpotqa" / name)
    assert len(env.questions) == 100 and len(env.wiki.titles) == pages
    assert not check_environment(env, plays=5, process=False)


def test_the_development_questions_take_a_corpus(data):
    folder = data / "hotpotqa"
    env = HotpotQA(folder / "hotpot_dev_v1_simplified.json", wiki=folder / "hotpotqa_train100_corpus.json")
    assert [len(env.tasks(split)) for split in ("test", "validation", "train")] == [500, 500, 6405]
    assert env.tasks("test")[0].id == f"q{published_order()[0]}"
