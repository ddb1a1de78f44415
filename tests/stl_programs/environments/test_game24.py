from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import GameOf24
from stl_programs.environments import sealed_reward
from stl_programs.environments.game24.arithmetic import evaluate
from stl_programs.environments.game24.world import (
    SPLIT_SIZES,
    all_puzzles,
    calculator_check,
    count_solutions,
    moves,
    parse_numbers,
    reachable,
    solvable,
)
from stl_programs.errors import RewardSealed, TaskError
from stl_programs.records import Action

puzzles = st.sampled_from(all_puzzles())


def play(env, text, *steps):
    state = env.reset(task := env.task(text))
    for step in steps:
        state = env.step(state, Action(step)).state
    return task, state


def test_there_are_1362_solvable_puzzles():
    assert len(all_puzzles()) == len(set(all_puzzles())) == 1362


def test_the_enumeration_is_the_published_list(published):
    everything = [task.text for split in SPLIT_SIZES for task in published.tasks(split)]
    assert sorted(everything) == sorted(all_puzzles())


def test_published_splits_are_by_row(published, data):
    rows = (data / "game24" / "24.csv").read_text().splitlines()[1:]
    puzzle = [row.split(",")[1] for row in rows]
    assert [task.text for task in published.tasks("test")] == puzzle[900:1000]
    assert [task.text for task in published.tasks("train")] == puzzle[:800] + puzzle[1000:1262]
    assert [task.text for task in published.tasks("hard")] == puzzle[1262:]


def test_own_splits_are_fixed_disjoint_and_of_the_same_sizes(env):
    split = {name: [task.text for task in env.tasks(name)] for name in SPLIT_SIZES}
    assert {name: len(texts) for name, texts in split.items()} == SPLIT_SIZES
    assert len(set().union(*split.values())) == 1362
    assert split["test"] == [task.text for task in GameOf24().tasks("test")]


def test_a_split_seed_shuffles_all_but_the_hard_puzzles_anew(env):
    fresh, again, other = GameOf24(split_seed=7), GameOf24(split_seed=7), GameOf24(split_seed=8)
    split = {name: [task.text for task in fresh.tasks(name)] for name in SPLIT_SIZES}
    assert {name: len(texts) for name, texts in split.items()} == SPLIT_SIZES
    assert sorted(text for texts in split.values() for text in texts) == sorted(all_puzzles())
    assert fresh.tasks("hard") == env.tasks("hard")
    assert fresh.tasks("test") == again.tasks("test")
    assert len({frozenset(task.text for task in each.tasks("test")) for each in (env, fresh, other)}) == 3


def test_a_split_seed_does_not_go_with_the_published_list():
    with pytest.raises(ValueError, match=r"csv_path='24\.csv' and split_seed=0: .* pass one of the two"):
        GameOf24("24.csv", split_seed=0)


def test_a_solution(env):
    task, state = play(env, "10 4 6 5", "10 - 4 = 6", "5 * 6 = 30", "30 - 6 = 24")
    assert state.terminal
    assert env.answer(task, state) == "(5 * 6) - (10 - 4)"
    assert env.score(task, env.answer(task, state)) == 1.0


def test_fractions_are_exact(env):
    task, state = play(env, "3 3 8 8", "8 / 3 = 8/3", "3 - 8/3 = 1/3", "8 / 1/3 = 24")
    assert env.score(task, env.answer(task, state)) == 1.0


@pytest.mark.parametrize("answer", [
    "4 * 6", "4 * 6 * 5 / 5", "(10 - 4) * (5 - 6)", "24", "", "4 5 6 10", "(10 - 4) * 6 - 5 +", "10 + 4 + 5 + 6 - 1",
    "__import__('os')", "4 + 5 + 6 + 10", "(5 * 6) - (10 - 4) # yes", "5 ** 6", "10-4*6-5/0", "(((((4",
    "٤ + 5 + 6 + 10"])
def test_wrong_answers_score_nothing(env, answer):
    assert env.score(env.task("4 5 6 10"), answer) == 0.0


@pytest.mark.parametrize(("text", "why"), [
    ("4 5 6", "3 numbers"), ("4 5 6 x", "'x'"), ("4 5 6 14", "'14'"), ("0 5 6 7", "'0'"), ("1 1 1 1", "cannot be made"),
    ("", "0 numbers"), ("4 5 6 1.5", "'1.5'"), ("4 5 6 -1", "'-1'")])
def test_bad_puzzles_say_what_is_wrong(env, text, why):
    with pytest.raises(TaskError, match=why):
        env.task(text)


@pytest.mark.parametrize(("move", "why"), [
    ("4 * 6 = 25", "is wrong: 4 \\* 6 is 24"), ("7 + 4 = 11", "7 is not among"), ("4 + 4 = 8", "4 is not among"),
    ("4 ^ 6 = 24", "is not a move"), ("4 / 0 = 1", "0 is not among"), ("4 * 6 = 24; 5 * 5 = 25", "is not a move"),
    ("4 / 6 = 1/0", "over zero")])
def test_bad_moves_say_what_is_wrong(env, move, why):
    with pytest.raises(TaskError, match=why):
        play(env, "4 5 6 10", move)


def test_the_reward_is_sealed_during_a_reward_free_search(env):
    task = env.task("4 5 6 10")
    with sealed_reward(), pytest.raises(RewardSealed, match="reward-free"):
        env.score(task, "4 * 6")
    assert env.score(task, "4 * 6") == 0.0


@settings(max_examples=60, deadline=None)
@given(puzzles, st.data())
def test_every_listed_move_is_legal_and_leads_to_a_distinct_state(text, data):
    env = GameOf24()
    state = env.reset(env.task(text))
    while not state.terminal:
        steps = [env.step(state, action) for action in env.legal_actions(state)]
        keys = [step.state.key for step in steps]
        assert len(keys) == len(set(keys))
        state = data.draw(st.sampled_from(steps)).state
    value, used = evaluate(env.answer(env.task(text), state))
    assert value == Fraction(state.text) and sorted(used) == sorted(map(int, text.split()))


@settings(max_examples=40, deadline=None)
@given(puzzles)
def test_the_oracle_agrees_with_exhaustion(text):
    numbers = parse_numbers(text)
    assert solvable(numbers)
    assert any(solvable(after) for _, after in moves(numbers))
    assert count_solutions(numbers) == sum(count_solutions(after) for _, after in moves(numbers))


def _combine(parts):
    (left, x), op, (right, y) = parts
    results = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}
    return f"({left} {op} {right})", results[op]


expressions = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(_combine).filter(lambda e: e[1] is not None),
    max_leaves=8)


@given(expressions)
def test_the_grammar_is_exact(expression):
    text, value = expression
    assert evaluate(text)[0] == value


@given(st.text(alphabet="0123456789+-*/() x"))
def test_the_grammar_refuses_or_reads_and_never_breaks(text):
    with contextlib.suppress(TaskError):
        evaluate(text)


def test_reachable_states(env):
    found = reachable(["1 1 1 8"])
    assert parse_numbers("1 1 1 8") in found and parse_numbers("1 1 9") in found and parse_numbers("2 9") in found
    assert parse_numbers("24") not in found


@pytest.mark.parametrize(("chain", "score", "why"), [
    ("4 * 6 = 24 -> 1 24 . 1 * 24 = 24 -> 24 . end", "sure", None),
    ("4 * 6 = 24 -> 1 24 . 1 + 24 = 25 -> 25 . end", "impossible", None),
    ("4 * 6 = 24 -> 1 24 . 1 + 24 = 25 -> 25 . end", "sure", "contradicts"),
    ("4 * 6 = 24 -> 1 24 . 1 * 24 = 24 -> 24 . end", "likely", "contradicts"),
    ("4 * 6 = 25 -> 1 25 . end", "impossible", "wrong move"),
    ("4 * 6 = 24 -> 2 24 . end", "impossible", "wrong numbers"),
    ("4 * 6 = 24 -> 1 24 . end", "impossible", "stops early"),
    ("because I say so", "sure", "not a finished chain")])
def test_the_calculator_checks_and_does_not_search(chain, score, why):
    found = calculator_check("1 4 6", chain, score)
    assert (found is None) if why is None else why in found


def test_a_list_that_is_not_the_published_one(tmp_path):
    path = tmp_path / "24.csv"
    path.write_text("Rank,Puzzles\n1,1 1 4 6\n")
    with pytest.raises(TaskError, match="1362 solvable"):
        GameOf24(path).tasks("test")
    with pytest.raises(TaskError, match="cannot read"):
        GameOf24(tmp_path / "none.csv").tasks("test")


@pytest.mark.parametrize("data", [
    b"", b"Rank\n1\n", b"Rank,Puzzles\n1\n", b"Rank,Puzzles\n1,1 2 3\n", b"Rank,Puzzles\n1,1/0 2 3 4\n",
    b"Rank,Puzzles\n1,1e999999999 2 3 4\n", b"Rank,Puzzles\n1,\xff 2 3 4\n", b"Rank,Puzzles\n1,a 2 3 4\n",
    b"Rank,Puzzles\n1," + b"1" * 200_000, b"Rank,Puzzles\n1,1 1 4 6\x00\n", b"x" * 2**21])
def test_a_list_that_is_none_is_one_clear_error(tmp_path, data):
    (tmp_path / "24.csv").write_bytes(data)
    with pytest.raises(TaskError) as error:
        GameOf24(tmp_path / "24.csv").tasks("test")
    assert "24.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", [
    f"{'9' * 5000} + 4 = 5", "4" + " " * 10**6 + "x", "\u0664 * \u0666 = \u0662\u0664", "4/0 + 5 = 9"])
def test_numbers_that_no_game_has_are_refused_at_once(text):
    env = GameOf24()
    with pytest.raises(TaskError):
        env.step(env.reset(env.task("4 5 6 10")), Action(text))
    assert calculator_check("4 6", f"4 * 6 = 24 -> {text} . end", "sure") == "an impossible or wrong move"


def test_an_exponent_is_no_number():
    assert calculator_check("4 6", "4 * 6 = 24 -> 1e700000000 . end", "sure") == "an impossible or wrong move"
