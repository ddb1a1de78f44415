"""What a model, a server or a world writes acts on no terminal, wherever it is printed."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from experiments.kit import tables
from stl_programs import BeamSearch, GreedySearch, LegalMoves, Uniform, costs, run_sync, run_tasks
from stl_programs.costs import Bill
from stl_programs.doctor import page
from stl_programs.doctor.finding import Finding
from stl_programs.errors import ModelError, TransientError
from stl_programs.records import Action, State, Transition
from stl_programs.testing import TreeWorld

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold]|[/x]\r"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Evil(TreeWorld):
    """Its states, actions and answers want to clear the screen."""

    def successors(self, state):
        return [(Action(EVIL + action.text), Transition(State(EVIL + step.state.text, step.state.key, (
            *state.history, EVIL + action.text), step.state.terminal, step.state.data), step.terminated, EVIL))
            for action, step in super().successors(state)]

    def answer(self, task, state):
        if task.text == "1":
            raise ValueError(EVIL)
        return EVIL


def on_a_terminal(shown):
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system=None, width=200).print(shown)
    return file.getvalue()


def test_trees_predictions_and_results():
    env = Evil(depth=2, branching=2, transpositions=0.0)
    found = BeamSearch(env, LegalMoves(), Uniform())(task="0")
    failed = run_sync(run_tasks(GreedySearch(env, LegalMoves(), Uniform()), ["1"]))[0]
    for shown in (found.tree.render(), repr(found.tree), repr(found), repr(failed), failed.error, failed.traceback):
        assert "owned" in shown and not ACTS.search(shown)


@pytest.mark.parametrize("kind", [ModelError, TransientError])
def test_errors(kind):
    assert not ACTS.search(str(kind(f"the server says {EVIL}"))) and str(kind("two\nlines")) == "two\nlines"


def test_tables():
    bills = [Bill(phase=EVIL, model=EVIL, calls=1)]
    for shown in (costs.markdown(bills), on_a_terminal(costs.table(bills))):
        assert "owned" in shown and not ACTS.search(shown)
    assert "[bold]|[/x]" in on_a_terminal(costs.table(bills)) and costs.markdown(bills).count("\n") == 3
    assert len({line.count("|") for line in costs.markdown(bills).splitlines()}) == 1
    assert "|" not in tables._rows([[EVIL]])[0].strip("| ")


def test_the_doctor():
    shown = page({"servers": [Finding("a server", EVIL, problem=True)]})
    assert "owned" in shown and not ACTS.search(shown)
