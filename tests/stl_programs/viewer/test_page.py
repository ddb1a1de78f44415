"""The page of a recorded tree: whole, inert, tolerant of older records; and the command that writes it."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from stl_programs.records import State, Task
from stl_programs.tree import Tree
from stl_programs.viewer import __main__ as command
from stl_programs.viewer import tree_page
from stl_programs.viewer.page import page_record

HOSTILE = "</script><img src=x onerror=\"alert('x')\"><!--<script>&amp;\u2028\u2029\ud800"


def node(i, parent, **fields):
    return {"id": i, "parent": parent, "action": None if parent is None else f"go {i}", "state": f"state {i}",
            "terminal": False, "expanded": False, "kept": False, "value": None, **fields}


def value(score, *samples, rationale="because"):
    return {"score": score, "rationale": rationale, "samples": list(samples)}


def record(*nodes, **fields):
    return {"task": "a task", "nodes": list(nodes), **fields}


def data(page):
    """What the page reads."""
    [text] = re.findall(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_every_field_of_the_record_is_in_the_page():
    cost = {"calls": 2, "prompt_tokens": 30, "completion_tokens": 4, "dollars": 0.5}
    shown = data(tree_page(record(
        node(0, None, expanded=True, kept=True, cost=cost | {"dollars": None}),
        node(1, 0, kept=True, terminal=True, visits=3, value_sum=4.5, value_max=2.5, cost=cost,
             value=value(2.5, [2, None], [None, "not on the scale"])),
        program="BeamSearch", information="reward-free", answer="42", chosen=1, ended="calls: 4 of 4")))
    assert shown["nodes"][1] == {
        "id": 1, "parent": 0, "action": "go 1", "state": "state 1", "terminal": True, "kept": True, "visits": 3,
        "backed_up": [1.5, 2.5], "cost": cost,
        "value": {"score": 2.5, "rationale": "because", "samples": [[2, None], [None, "not on the scale"]]}}
    assert (shown["program"], shown["information"], shown["answer"], shown["chosen"], shown["ended"]) == (
        "BeamSearch", "reward-free", "42", 1, "calls: 4 of 4")
    assert shown["totals"] == {
        "states": 2, "expanded": 1, "kept": 2, "judged": 1, "missing": 0, "draws": 2, "draws_missing": 1, "lowest": 2.5,
        "highest": 2.5, "visited": True, "cost": {"calls": 4, "prompt_tokens": 60, "completion_tokens": 8,
                                                  "dollars": 0.5, "unpriced": 1}}


def test_a_tree_and_its_record_give_the_same_page():
    tree = Tree(Task("t", "a task"), State("start", "start"))
    tree.add(tree.root, "go", State("end", "end", ("go",), terminal=True))
    assert tree_page(tree) == tree_page(tree.to_dict())


def test_an_older_record_is_shown_without_what_it_lacks():
    shown = data(tree_page(record(node(0, None))))
    assert shown["chosen"] is None and shown["answer"] is None and shown["totals"]["cost"] is None
    assert not shown["totals"]["visited"] and shown["totals"]["lowest"] is None


def test_a_search_that_no_budget_ended_says_so():
    assert data(tree_page(record(node(0, None), ended=None)))["ended"] == "finished by itself"
    assert data(tree_page(record(node(0, None))))["ended"] is None


def test_ids_need_not_be_positions():
    shown = data(tree_page(record(node("a", None), node("b", "a"), node(7, "b"), chosen=7)))
    assert [n["parent"] for n in shown["nodes"]] == [None, 0, 1] and shown["chosen"] == 2


@pytest.mark.parametrize("broken, message", [
    (record(), "without nodes"),
    (record(node(0, None), node(1, 5)), "node 1 names parent 5"),
    (record(node(0, None), chosen=9), "chosen leaf 9"),
    (record(node(0, None), node(0, 0)), "two nodes have the id 0"),
])
def test_a_broken_record_is_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        tree_page(broken)


def test_numbers_that_json_lacks_are_missing():
    shown = data(tree_page(record(node(0, None, value=value(float("nan"), [float("inf"), None])))))
    assert shown["nodes"][0]["value"] == {"score": None, "rationale": "because", "samples": [[None, None]]}


def test_hostile_text_is_inert_and_kept_to_the_letter():
    hostile = node(1, 0, action=HOSTILE, state=HOSTILE, value=value(None, [None, HOSTILE], rationale=HOSTILE))
    page = tree_page({"task": HOSTILE, "program": HOSTILE, "answer": HOSTILE, "ended": HOSTILE,
                      "nodes": [node(0, None), hostile]})
    page.encode("utf-8")
    assert "<img" not in page and page.count("<script") == page.count("</script>") == 2
    assert not re.search("[\u2028\u2029]", page)
    shown = data(page)
    seen = HOSTILE.replace("\ud800", "\ufffd")
    assert shown["task"] == shown["answer"] == shown["nodes"][1]["state"] == seen
    assert shown["nodes"][1]["value"]["samples"] == [[None, seen]]


def test_the_policy_admits_this_script_and_style_and_nothing_else():
    page = tree_page(record(node(0, None)))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|https?:", page)


# The command


def journal(tmp_path, *rows, tail=""):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def run(path, *options):
    out = path.parent / "page.html"
    command.main([str(path), "--out", str(out), *options])
    return data(out.read_text(encoding="utf-8"))


HEADER = {"format": 1, "fingerprint": {"task": "not a result"}}


def test_the_command_writes_the_first_recorded_tree(tmp_path, capsys):
    path = journal(tmp_path, HEADER, {"task": "t1", "tree": None},
                   {"task": "t2", "answer": "x", "tree": record(node(0, None))}, tail='{"task": "t3", "tr')
    assert run(path)["answer"] == "x"
    assert "page.html" in capsys.readouterr().out


def test_the_command_finds_a_task_in_either_form_of_line(tmp_path):
    path = journal(tmp_path, HEADER, {"task": "t1", "tree": record(node(0, None))},
                   {"result": {"task": "t2", "answer": "old", "tree": record(node(0, None), answer="new")}})
    assert run(path, "--task", "t2")["answer"] == "new"


def test_a_task_that_failed_and_was_run_again_has_its_tree(tmp_path):
    path = journal(tmp_path, {"task": "t", "error": "down", "tree": None}, {"task": "t", "tree": record(node(0, None))})
    assert run(path, "--task", "t")["totals"]["states"] == 1


@pytest.mark.parametrize("rows, options, message", [
    ([HEADER], [], "holds no finished task"),
    ([{"task": "t", "tree": None}], [], "keep_trees=True"),
    ([{"task": "t", "tree": None}], ["--task", "t"], "no tree of task 't': run the search with keep_trees=True"),
    ([{"task": "t", "error": "ModelError: down", "tree": None}], ["--task", "t"], "it failed with ModelError: down"),
    ([{"task": "t", "tree": None}], ["--task", "u"], "no task 'u'; it has 't'"),
    ([{"task": "t", "tree": record(node(0, None), node(1, 5))}], [], "names parent 5"),
])
def test_what_cannot_be_shown_is_said_in_one_line(tmp_path, rows, options, message):
    with pytest.raises(SystemExit) as stop:
        run(journal(tmp_path, *rows), *options)
    assert message in str(stop.value) and "\n" not in str(stop.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"gone\.jsonl: No such file"):
        run(tmp_path / "gone.jsonl")
    with pytest.raises(SystemExit, match="line 1 is not JSON"):
        run(journal(tmp_path, tail="a tree\n"))
    path = journal(tmp_path, {"task": "t", "tree": record(node(0, None))})
    with pytest.raises(SystemExit, match=r"page\.html: No such file"):
        command.main([str(path), "--out", str(tmp_path / "nowhere" / "page.html")])


@pytest.mark.parametrize("changed", [
    {"nodes": 5}, {"nodes": [5]}, {"nodes": [{"id": []}]}, {"nodes": [{"value": "x"}]}, {"nodes": [{"cost": "x"}]},
    {"chosen": []}])
def test_a_record_that_is_none_is_one_line(changed):
    with pytest.raises(ValueError) as error:
        tree_page({"task": "t", "nodes": [{"id": 0}]} | changed)
    assert "\n" not in str(error.value)


def test_numbers_that_are_none_are_left_out():
    page = page_record({"task": "t", "nodes": [{"id": 0, "visits": "3", "value_sum": 10**400, "value": {
        "score": 10**400, "samples": [5, ["x", "y"]]}, "cost": {"calls": "many", "dollars": float("nan")}}]})
    node = page["nodes"][0]
    assert node["cost"] == {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "dollars": None}
    assert node["value"] == {"score": None, "rationale": "", "samples": [[None, "y"]]} and "visits" not in node
