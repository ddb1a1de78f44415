"""Notebooks and terminals: what shows itself, progress, Ctrl-C, errors and warnings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings
from pathlib import Path

import pytest

from stl_programs import MCTS, GreedySearch, LegalMoves, Policy, Uniform, Value, run_sync, run_tasks
from stl_programs.display import clean, one_line
from stl_programs.engine import NothingUnderstood
from stl_programs.errors import StlError
from stl_programs.records import State, Task, TaskResult
from stl_programs.search.shown import Outcome
from stl_programs.testing import ScriptedModel
from stl_programs.testing.game24_script import game24_script
from stl_programs.tree import Tree

TASK = "4 5 6 10"
EVIL = "<script>alert(1)</script>\x1b[31mred\x07 | `x` \u202eflipped \ud800"


def player(**options):
    return ScriptedModel("scripted/p", lambda messages, seed: game24_script(messages, "p", seed), **options)


def searching(env, model, **options):
    return GreedySearch(env, Policy(env.policy_signature, model, count=2, rounds=1),
                        Value(env.value_signature, model, samples=2), **options)


# What shows itself

def evil_tree():
    tree = Tree(Task(EVIL, EVIL), State(f"1 2 3\n4 5 6\n{EVIL}"))
    tree.add(tree.root, EVIL, State("a\nb\n\n\tc", "k", (EVIL,))).kept = True
    tree.about = {"program": "GreedySearch", "answer": EVIL}
    return tree


def evil_result():
    usage = {"value": {"prompt_tokens": 3, "completion_tokens": 4, "dollars": None}}
    return TaskResult(EVIL, answer=EVIL, trajectory=[EVIL], usage=usage, error=EVIL, tree=evil_tree().to_dict(),
                      notes={EVIL: 2})


@pytest.mark.parametrize("shown", [evil_tree(), evil_result(), Outcome.of(evil_result())], ids=["tree", "result",
                                                                                             "prediction"])
def test_what_models_wrote_acts_on_no_page_and_no_terminal(shown):
    page, markdown = shown._repr_html_(), shown._repr_markdown_()
    assert "<script" not in page and "&lt;script&gt;" in page
    code = [line for line in markdown.splitlines() if line.startswith("    ")]
    assert all("<script" not in line.replace("\\<", "") for line in markdown.splitlines() if line not in code)
    for text in (page, markdown):
        text.encode()
        assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(text) and "red" in text


def test_a_rendered_tree_is_one_clean_line_a_state():
    lines = evil_tree().render().split("\n")
    assert len(lines) == 2 and lines[0].startswith("* 1 2 3 / 4 5 6 / ") and "a / b / c" in lines[1]
    assert all(text.isprintable() for text in (*lines, repr(evil_tree())))


@pytest.mark.parametrize(("text", "shown"), [
    ("plain", "plain"), ("two\r\nlines", "two / lines"), ("tab\there", "tab here"), ("\x1b[2J", "\ufffd[2J"),
    ("a\x85b", "a / b"), ("", ""), ("ß ∑ 日本", "ß ∑ 日本"), ("x" * 200, "x" * 97 + "...")])
def test_one_line_of_any_text(text, shown):
    assert one_line(text) == shown
    assert clean("two\nlines") == "two\nlines"


def test_a_table_of_markdown_keeps_its_cells():
    [row] = [line for line in evil_result()._repr_markdown_().splitlines() if line.startswith("| answer")]
    assert row.replace("\\|", "").count("|") == 3


def test_a_prediction_shows_its_answer_its_cost_and_the_tree(env):
    prediction = searching(env, player())(task=TASK)
    page, markdown = prediction._repr_html_(), prediction._repr_markdown_()
    tokens = sum(one["prompt_tokens"] + one["completion_tokens"] for one in prediction.usage.values())
    assert f"<th>tokens</th><td>{tokens}</td>" in page and "<th>dollars</th><td>unknown</td>" in page
    assert f"| tokens | {tokens} |" in markdown and "states of '4 5 6 10'" in markdown and "    * 4 5 6 10" in markdown


def test_a_result_and_a_large_tree_stay_short(env):
    [result] = run_sync(run_tasks(searching(env, player()), [TASK]))
    assert f"<td>{TASK}</td>" in result._repr_html_() and "| states judged |" in result._repr_markdown_()
    tree = Tree(Task("t", "t"), State("root"))
    for i in range(1000):
        tree.add(tree.root, f"a{i}", State(str(i))).kept = True
    assert tree._repr_html_().count("\n") < 210 and "... and 801 more" in tree._repr_markdown_()


def test_ipython_takes_all_of_them(env):
    formatters = pytest.importorskip("IPython.core.formatters")
    prediction = searching(env, player())(task=TASK)
    formatter = formatters.DisplayFormatter()
    formatter.active_types = formatter.format_types
    for shown in (prediction, prediction.tree, evil_result()):
        found, _ = formatter.format(shown)
        assert {"text/plain", "text/html", "text/markdown"} <= set(found)


# Progress

class Console:
    """A stream as a notebook's kernel has it, or a terminal, or a file."""

    def __init__(self, terminal):
        self.terminal, self.text = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("kind", ["terminal", "notebook", "file"])
def test_progress_in_one_call(env, monkeypatch, kind):
    console = Console(kind == "terminal")
    if kind == "notebook":
        monkeypatch.setattr(Console, "__module__", "ipykernel.iostream")
    monkeypatch.setattr(sys, "stderr", console)
    searching(env, player())(task=TASK, progress=True)
    monkeypatch.undo()
    assert "1/1 tasks" in console.text and console.text.endswith("\n")
    assert ("\r" in console.text) == (kind != "file")


def test_no_progress_unless_asked(env, capsys):
    searching(env, player())(task=TASK)
    assert capsys.readouterr().err == ""


# Errors

@pytest.mark.parametrize("inside", [False, True], ids=["script", "notebook"])
@pytest.mark.parametrize("task", ["no puzzle", TASK])
def test_errors_say_nothing_of_event_loops(env, inside, task):
    def refuse(messages, seed):
        raise StlError("the model is gone")

    program = searching(env, ScriptedModel("scripted/none", refuse))

    async def main():
        return program(task=task)

    with pytest.raises(StlError) as error:
        asyncio.run(main()) if inside else program(task=task)
    shown = "".join(traceback.format_exception(error.value))
    assert "During handling" not in shown and "event loop" not in shown and "direct cause" not in shown


# Warnings

def warned(work):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = work()
    return result, [str(one.message) for one in found if one.category is NothingUnderstood]


def test_a_model_that_is_never_understood_is_one_warning_a_run_and_a_note_a_task(env):
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, ScriptedModel("scripted/x", lambda *_: "No."),
                                                    samples=2))
    results, said = warned(lambda: run_sync(run_tasks(program, [TASK, "1 2 3 4", "2 3 4 6"])))
    assert len(said) == 1 and "no reply of the value's model (scripted/x) could be read" in said[0]
    assert "no state got a score" in said[0] and "\n" not in said[0]
    for result in results:
        assert result.notes["value draws that could not be read"] == result.usage["value"]["parse_failures"] > 0
        assert result.notes["states judged without a score"] == result.states_judged > 0
    prediction, said = warned(lambda: program(task=TASK))
    assert prediction.notes["states judged without a score"] > 0 and len(said) == 1
    assert "states judged without a score" in prediction._repr_html_()


def test_nothing_to_choose_from_is_said_too(env):
    program = GreedySearch(env, Policy(env.policy_signature, ScriptedModel("scripted/x", lambda *_: "No."), rounds=1),
                           Uniform())
    prediction, said = warned(lambda: program(task=TASK))
    assert prediction.notes["nothing to choose from at the start"] == 1 and prediction.trajectory == []
    assert len(said) == 1 and "nothing to choose from" in said[0] and "policy's model (scripted/x)" in said[0]


def test_an_evaluation_task_by_task_warns_once_under_pythons_own_rules(env):
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, ScriptedModel("scripted/once", lambda *_: "?"),
                                                    samples=1))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for task in (TASK, "1 2 3 4", "2 3 4 6"):
            program(task=task)
    assert len([one for one in found if one.category is NothingUnderstood]) == 1


def test_a_run_that_understood_something_is_silent(env):
    def sometimes(messages, seed):
        return "?" if seed % 2 else game24_script(messages, "p", seed)

    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, ScriptedModel("scripted/p", sometimes)))
    results, said = warned(lambda: run_sync(run_tasks(program, [TASK, "1 2 3 4"])))
    assert said == [] and any("value draws that could not be read" in result.notes for result in results)


# Ctrl-C

def test_ctrl_c_inside_a_running_loop_stops_the_search_and_closes(env):
    closed, begun = [], threading.Event()

    class World(type(env)):
        async def aclose(self):
            closed.append(True)

    def slow(seed):
        if len(model.requests) > 3 and not begun.is_set():
            begun.set()
            os.kill(os.getpid(), signal.SIGINT)
        return 0.01

    def program(model):
        return MCTS(World(), Policy(env.policy_signature, model, count=6), Value(env.value_signature, model),
                    simulations=200)

    async def cell():
        with pytest.raises(KeyboardInterrupt):
            program(model)(task=TASK)
        asked = len(model.requests)
        await asyncio.sleep(0.2)
        return asked

    whole, model = player(), player(latency=slow)
    program(whole)(task=TASK)
    closed.clear()
    asked = without_asyncios_own_handler(cell)
    assert begun.is_set() and closed == [True] and len(model.requests) == asked and model.in_flight == 0
    assert asked < len(whole.requests) / 2
    assert not [thread for thread in threading.enumerate() if thread.name == "run_sync"]


def without_asyncios_own_handler(cell):
    """As in a kernel: the loop leaves Ctrl-C to the code that it runs."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()


SCRIPT = """
    import os, signal, threading
    from stl_programs import MCTS, GameOf24, Policy, Value
    from stl_programs.testing import Latency, Simulator
    from stl_programs.testing.game24_script import game24_script

    signal.signal(signal.SIGINT, signal.default_int_handler)
    env, seen = GameOf24(), []

    def reply(messages, model, seed):
        seen.append(seed)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return game24_script(messages, model, seed)

    with Simulator(reply, ["m"], latency=Latency(0.02)) as server:
        os.environ["HOSTED_VLLM_API_BASE"] = server.url
        program = MCTS(env, Policy(env.policy_signature, "hosted_vllm/m", count=2),
                       Value(env.value_signature, "hosted_vllm/m"), simulations=500)
        try:
            program(task="4 5 6 10")
            print("finished")
        except KeyboardInterrupt:
            asked = server.stats()["requests"]
            threading.Event().wait(0.5)
            print("interrupted", server.stats()["requests"] - asked)
"""


@pytest.mark.slow
def test_ctrl_c_in_a_script_stops_the_search():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, timeout=120,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.split()[0] == "interrupted" and int(done.stdout.split()[1]) <= 0, done.stderr
