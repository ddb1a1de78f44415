"""The examples run as a user runs them, and print what they are there to show."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from stl_programs import check_environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MOST_LINES = 60
FILES = {path.name for path in EXAMPLES.glob("*.py")}


def rows(printed: str, pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, printed, re.M)


def shows_a_table(printed: str) -> None:
    found = rows(printed, r"^(beam search|best first|MCTS) +(\d+) +(\d+) +(\d+) +(\d+)$")
    [(puzzles, limit)] = rows(printed, r"^(\d+) puzzles, at most (\d+) calls each$")
    assert [name for name, *_ in found] == ["beam search", "best first", "MCTS"]
    for _, solved, calls, tokens, cut_off in found:
        assert 0 < int(solved) <= int(puzzles)
        assert 0 < int(calls) <= int(puzzles) * int(limit) < int(tokens)
        assert int(cut_off) <= int(puzzles)


def shows_a_sorted_stack(printed: str) -> None:
    assert "findings: nothing to mend" in printed
    [way] = rows(printed, r"^2 5 3 1 6 4 -> .*$")
    stacks = way.split(" -> ")
    [flips] = rows(printed, r"^flip .*$")
    assert stacks[-1] == "1 2 3 4 5 6" and len(flips.split(", ")) == len(stacks) - 1
    assert len(set(stacks)) == len(stacks)


def shows_one_purchase(printed: str) -> None:
    assert re.search(r"buy 9:40 .*\(not taken\)$", printed, re.M)
    assert printed.endswith("chosen: buy 9:40 | bought: ()\nanswer: 9:40 | bought: ('9:40',)\n")


def shows_that_votes_help(printed: str) -> None:
    found = [(int(n), int(right)) for n, right in rows(printed, r"^n = +(\d+): (\d+) of 40 right$")]
    assert [n for n, _ in found] == [1, 4, 16]
    one, four, sixteen = (right for _, right in found)
    assert one < four < sixteen


def shows_what_was_learned(printed: str) -> None:
    assert rows(printed, r"^a new version of the model: (embedded/game24@value-v1-\w+)$")
    [(before, after)] = rows(printed, r"^before: (\d+) of 25 solved\nafter: (\d+) of 25 solved$")
    assert int(after) > int(before)
    assert rows(printed, r"^\d+ [-+*/] \d+ = \d+ +[\d.]+  .+ -> .* end$"), "it looks a step ahead"


SHOWS = {"compare.py": shows_a_table, "own_world.py": shows_a_sorted_stack, "purchase.py": shows_one_purchase,
         "best_of_n.py": shows_that_votes_help, "teach.py": shows_what_was_learned}
"""Every example, with what its output has to show."""


SLOW = {"compare.py", "teach.py"}
"""Those of a quarter of a minute and more."""


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SHOWS])
def test_an_example_shows_what_it_is_there_for(name, tmp_path):
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "never retrieved" not in done.stderr
    SHOWS[name](done.stdout)


@pytest.mark.parametrize(("name", "world", "task", "actions"), [
    ("purchase.py", "Trains", "there by 13 for 30 euros", None),
    ("best_of_n.py", "Products", "3 * 4", lambda state: ["3 * 4 = 12", "3 * 4 = 13"])])
def test_the_other_worlds_are_sound_too(name, world, task, actions):
    env = runpy.run_path(str(EXAMPLES / name))[world]()
    assert check_environment(env, tasks=[task], actions=actions, process=False) == []


def test_every_example_is_run():
    assert set(SHOWS) == FILES


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_example_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < MOST_LINES


def test_the_page_has_a_line_for_each():
    links = re.findall(r"^- \[(\w+\.py)\]\((\w+\.py)\): .+", (EXAMPLES / "README.md").read_text(), re.M)
    assert {one for link in links for one in link} == FILES and len(links) == len(FILES)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text()))
def test_links_lead_somewhere(target):
    assert (EXAMPLES / target).exists(), f"examples/README.md links to {target}"
