"""The chat format of the released training rows: read, checked, written, and trained on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import LoraSettings
from optimizers.data.lookahead import lookahead
from optimizers.data.released import ReleasedRow, read_released, released_rows, write_released
from optimizers.trainers.sft import train_adapter
from stl_programs import BeamSearch, HotpotQA, LegalMoves, Value, WebShop, run_tasks
from stl_programs.errors import StlError
from stl_programs.secrets import cleaned
from stl_programs.testing import ScriptedModel, answering
from stl_programs.tree import Tree

ROW = ReleasedRow("WebShop \ni want a lamp", (("search[lamp]", "[a] lamp"),), "click[a]", "A lamp. [Buy Now]",
                  (), "click[buy now]", "Terminal State", "A lamp is a lamp.", 6.67)
FILES = {"webshop": [("1", 235, {}), ("2", 361, {"label": 2, "score phrase": 2, "dangling Thus": 1}),
                     ("3", 597, {"label": 2, "score phrase": 2}), ("4", 264, {}), ("5", 17, {})],
         "hotpot": [("4", 636, {"dangling Thus": 4})]}


def released(data, world, depth):
    [path] = (data / "stl_release" / world / "improvement_data").glob(f"*depth={depth}.jsonl")
    return path


@pytest.mark.parametrize("world, depth, sound, defects", [
    (world, *row) for world, rows in FILES.items() for row in rows])
def test_the_released_files_are_read_and_their_defects_found(data, world, depth, sound, defects):
    found = read_released(released(data, world, depth))
    assert (len(found.rows), dict(found.counted)) == (sound, defects)
    assert [row.terminal for row in found.rows].count(True) == {"hotpot4": 636, "webshop3": 264, "webshop4": 246,
                                                                "webshop5": 17}.get(world + depth, 0)


def test_what_was_read_is_written_and_read_again(data, tmp_path):
    for world, depth in (("webshop", 3), ("hotpot", 4)):
        found = read_released(released(data, world, depth))
        write_released(tmp_path / "rows.json", found.rows)
        again = read_released(tmp_path / "rows.json")
        assert [row.pair() for row in again.rows] == [cleaned(row.pair()) for row in found.rows]  # keys are masked
        assert not again.defects


@pytest.mark.parametrize("change, why", [
    (lambda t: t.replace("6.67 /", "12.33 /"), "label: 12.33 is not from 1 to 10"),
    (lambda t: t.replace("6.67 /", "-1 /"), "label: -1"),
    (lambda t: t.replace("A lamp is", "Thus the correctness score is 2. A lamp is"), "score phrase: it stands 2 times"),
    (lambda t: t.replace("is a lamp.", "is a lamp. Thus,"), "dangling Thus"),
    (lambda t: t.replace("Thus the correctness score is 6.67 / 10.00.", ""), "score phrase: it stands 0 times"),
    (lambda t: t.replace("6.67 / 10.00", "high"), "score: "),
    (lambda t: t.replace("Best Next Action:", "Next:"), "not answered in the format"),
    (lambda t: t.replace("Current Observation:", "Seen:"), "not asked in the format"),
    (lambda t: t.replace('"gpt"', '"human"'), "no pair: "),
    (lambda t: t.replace('"value"', '"text"'), "no pair")])
def test_a_row_with_a_defect_is_named(tmp_path, change, why):
    sound = json.dumps(ROW.pair())
    (tmp_path / "rows.json").write_text(f"[{sound}, {change(sound)}]")
    found = read_released(tmp_path / "rows.json")
    [(number, said)] = found.defects
    assert number == 1 and said.startswith(why) and "\n" not in said and found.rows == [replace(
        ROW, instruction=found.rows[0].instruction)]


@pytest.mark.parametrize("text", ["", "[", "{}", "[[]", "nothing", "\x00"])
def test_a_file_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(StlError, match="no released file") as refused:
        read_released(tmp_path / "rows.json")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    with pytest.raises(StlError, match="cannot be read"):
        read_released(tmp_path / "missing.json")


texts = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip).filter(bool)


@settings(max_examples=150, deadline=None)
@given(texts, st.lists(st.tuples(texts, texts), max_size=3), texts, texts, texts, st.integers(100, 1000))
def test_every_row_that_can_be_said_is_read_back(opening, steps, action, seen, why, hundredths):
    row = ReleasedRow(opening, tuple(steps), action, seen, ("search[a]", "lookup[b]"), "search[a]", seen, why,
                      hundredths / 100)
    row.pair()  # it raises where it would not be read back


@pytest.mark.parametrize("name", ["observation", "rationale", "next_state", "action"])
def test_a_heading_in_a_page_is_refused(name):
    with pytest.raises(StlError, match="cannot be said in the released format"):
        replace(ROW, **{name: "a\nCurrent Action: x\nCurrent Observation: y\nThus the correctness score is 3 / 10.00."
                        }).pair()


def judged(inputs, seed):
    """A named fake: it counts words of the task on the page."""
    words = set(inputs["task"].lower().split())
    share = len(words & set(inputs["state"].lower().split())) / len(words)
    return {"rationale": "Words were counted.", "score": f"{1 + 9 * share:.2f}"}


@pytest.mark.parametrize("world", [WebShop, HotpotQA])
def test_the_rows_of_a_rollout_are_written_in_it(world, tmp_path):
    env = world(max_depth=3) if world is HotpotQA else world(tags="rules", max_depth=3)
    value = Value(env.value_signature, ScriptedModel("scripted/words", answering(judged)), samples=1)
    policy = LegalMoves() if world is WebShop else _lookups(env)
    results = asyncio.run(run_tasks(BeamSearch(env, policy, value, width=2), env.tasks("train")[:2], keep_trees=True))
    trees = [Tree.from_dict(result.tree) for result in results]
    examples, _ = lookahead(trees, asks=env.lookahead_signature.input_fields)
    rows, dropped = released_rows(examples, trees)
    write_released(tmp_path / "rows.json", rows)
    again = read_released(tmp_path / "rows.json")
    assert len(again.rows) == len(rows) >= 4 and not again.defects
    assert set(dropped) <= {"the first state: no action led to it"}
    assert sum(dropped.values()) + len(rows) == len(examples)
    assert all(env.task(result.task).text in row.opening for row, result in zip(rows[:1], results, strict=False))
    if world is HotpotQA:
        assert any(row.possible for row in again.rows)


def _lookups(env):
    from stl_programs import FillingPolicy

    def proposing(inputs, seed):
        """A named fake: it searches for the question's capitalised words."""
        words = [word.strip("?.,") for word in inputs["task"].split() if word[:1].isupper()]
        return {"rationale": "Capitals.", "actions": [f"search[{word}]" for word in words]}

    return FillingPolicy(env.policy_signature, ScriptedModel("scripted/capitals", answering(proposing)), count=3)


@pytest.mark.slow
@pytest.mark.parametrize("world, depth", [("webshop", 1), ("hotpot", 4)])
def test_released_rows_train_a_lora(data, world, depth, tiny_chat_model, tmp_path):
    rows = read_released(released(data, world, depth)).dataset(limit=8)
    record = train_adapter(rows, tiny_chat_model, tmp_path / "adapter", LoraSettings(
        epochs=2, batch_size=4, warmup_steps=0, learning_rate=1e-3, max_length=8192, loss="input+output"))
    assert record["steps"] == 4 and (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert record["losses"][-1] < record["losses"][0]
