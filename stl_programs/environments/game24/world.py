"""Game of 24: combine four numbers with + - * / into 24, in exact rational arithmetic (paper, appendix F)."""

from __future__ import annotations

import csv
import random
import re
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, StringConstraints, ValidationError

from signatures.game24 import SCALE, EstimateNumbers, LookaheadNumbers, ProposeMoves
from stl_programs.construct import checked
from stl_programs.environments.base import Environment
from stl_programs.environments.game24 import arithmetic, counting
from stl_programs.errors import TaskError
from stl_programs.outside import CONFIG_BYTES, read_text, said
from stl_programs.records import Action, State, Task, Transition

Numbers = tuple[Fraction, ...]
"""A multiset of numbers, ascending."""

TARGET = Fraction(24)
LOWEST, HIGHEST = 1, 13
SPLIT_SIZES = {"train": 1062, "validation": 100, "test": 100, "hard": 100}
SPLIT_SEED = 24
"""Shuffles the splits of the enumeration where no other seed is asked for."""
NUMBER = r"-?[0-9]{1,40}(?:/[0-9]{1,40})?"
"""No number of a game has more digits; one of a reply may."""
_NUMBER = re.compile(NUMBER)
_MOVE = re.compile(rf"\s*({NUMBER})\s*([-+*/])\s*({NUMBER})\s*=\s*({NUMBER})\s*")
LONGEST = 500
"""Characters of a move, or of the numbers that are left."""


class GameOf24(Environment):
    """States are multisets of numbers; a move replaces two of them by their sum, difference, product or quotient.

    Args:
        csv_path: the published puzzle list (`24.csv`). With it the splits are by its rows: train 0-799 and
            1000-1261, validation 800-899, test 900-999, hard 1262-1361. Without it, `hard` is the 100 puzzles with
            the fewest solutions and the rest is shuffled once with a fixed seed.
        split_seed: shuffles that rest anew: other train (1062), validation (100) and test (100) puzzles, the same
            `hard`. Not together with `csv_path`.

    Example:
        >>> env = GameOf24()
        >>> state = env.reset(env.task("4 5 6 10"))
        >>> env.legal_actions(state)[0].text
        '4 + 5 = 9'
    """

    name = "game24"
    max_depth = 3
    scale = SCALE
    policy_signature = ProposeMoves
    value_signature = EstimateNumbers
    lookahead_signature = LookaheadNumbers
    task_free_values = True

    @checked
    def __init__(self, csv_path: str | Path | None = None, split_seed: int | None = None):
        if csv_path and split_seed is not None:
            raise ValueError(f"csv_path={str(csv_path)!r} and split_seed={split_seed}: the published list brings its "
                             "own splits; pass one of the two")
        self.csv_path, self.split_seed = Path(csv_path) if csv_path else None, split_seed
        self._splits: dict[str, list[str]] | None = None

    def task(self, text: str) -> Task:
        words = str(text).split()
        if len(words) != 4:
            raise TaskError(f"{text!r} has {len(words)} numbers; a Game of 24 puzzle has exactly 4, like '4 5 6 10'")
        for word in words:
            if not re.fullmatch(r"[0-9]{1,2}", word) or not LOWEST <= int(word) <= HIGHEST:
                raise TaskError(f"{word!r} in {text!r} is not a whole number from {LOWEST} to {HIGHEST}")
        text = " ".join(str(number) for number in sorted(map(int, words)))
        if not solvable(parse_numbers(text)):
            raise TaskError(f"{text!r} cannot be made into 24; choose one of the {len(all_puzzles())} solvable puzzles")
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        if split not in SPLIT_SIZES:
            raise TaskError(f"no split {split!r}; there are {', '.join(SPLIT_SIZES)}")
        if self._splits is None:
            self._splits = (_published_splits(self.csv_path) if self.csv_path else
                            _own_splits(SPLIT_SEED if self.split_seed is None else self.split_seed))
        return [Task(text, text) for text in self._splits[split]]

    def reset(self, task: Task) -> State:
        return _state(parse_numbers(task.text), ())

    def legal_actions(self, state: State) -> list[Action]:
        return [Action(text) for text, _ in moves(state.data)]

    def choices(self, state: State) -> int:
        return len(moves(state.data))

    def successors(self, state: State) -> list[tuple[Action, Transition]]:
        return [(Action(text), self._transition(state, text, after)) for text, after in moves(state.data)]

    def step(self, state: State, action: Action) -> Transition:
        return self._transition(state, canonical_move(action.text), apply_move(state.data, action.text))

    @staticmethod
    def _transition(state: State, move: str, after: Numbers) -> Transition:
        state = _state(after, (*state.history, move))
        return Transition(state, terminated=state.terminal, observation=state.text)

    def answer(self, task: Task, state: State) -> str:
        """The history as one expression over the task's numbers, or what is left where it does not end in one."""
        expressions = [(Fraction(n), n) for n in task.text.split()]
        for move in state.history:
            a, op, b, result = _move_parts(move)
            left = expressions.pop(next(i for i, (value, _) in enumerate(expressions) if value == a))
            right = expressions.pop(next(i for i, (value, _) in enumerate(expressions) if value == b))
            expressions.append((result, f"({left[1]} {op} {right[1]})"))
        text = " ".join(text for _, text in expressions)
        return text[1:-1] if len(expressions) == 1 and text.startswith("(") else text

    def _score(self, task: Task, answer: str) -> float:
        """1.0 if `answer` is an expression worth 24 that uses the task's numbers once each, else 0.0."""
        try:
            value, used = arithmetic.evaluate(answer)
        except TaskError:
            return 0.0
        return float(value == TARGET and sorted(used) == sorted(map(int, task.text.split())))

    def oracle_value(self, state: State) -> float:
        """The exact value on the scale: sure where 24 can be reached, else impossible. Evaluation and oracle only."""
        return dict(SCALE.labels)["sure" if solvable(state.data) else "impossible"]


def parse_numbers(text: str) -> Numbers:
    """Raises TaskError for what is no row of whole numbers and fractions."""
    words = text.split() if len(text) <= LONGEST else [text[:LONGEST]]
    if not all(map(_NUMBER.fullmatch, words)):
        raise TaskError(f"{' '.join(words)!r} are no numbers; write them like '4 5 6 10' or '1/3 8'")
    return tuple(sorted(map(Fraction, words)))


@cache
def format_numbers(numbers: Numbers) -> str:
    return " ".join(str(number) for number in numbers)


def _state(numbers: Numbers, history: tuple[str, ...]) -> State:
    text = format_numbers(numbers)
    return State(text, text, history, terminal=len(numbers) == 1, data=numbers)


def _move_parts(text: str) -> tuple[Fraction, str, Fraction, Fraction]:
    match = _MOVE.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        raise TaskError(f"{text[:LONGEST]!r} is not a move; write it like '4 * 6 = 24'")
    try:
        return Fraction(match[1]), match[2], Fraction(match[3]), Fraction(match[4])
    except ZeroDivisionError:
        raise TaskError(f"{text!r} has a fraction over zero") from None


def canonical_move(text: str) -> str:
    a, op, b, result = _move_parts(text)
    return f"{a} {op} {b} = {result}"


def apply_move(numbers: Numbers, text: str) -> Numbers:
    """The numbers after a move. Raises TaskError where an operand is not there or the result is wrong."""
    a, op, b, result = _move_parts(text)
    rest = list(numbers)
    for operand in (a, b):
        if operand not in rest:
            raise TaskError(f"{text!r}: {operand} is not among the remaining numbers {format_numbers(numbers)!r}")
        rest.remove(operand)
    right = calculate(a, op, b)
    if right != result:
        raise TaskError(f"{text!r} is wrong: {a} {op} {b} is {'undefined' if right is None else right}")
    return tuple(sorted([*rest, result]))


def calculate(a: Fraction, op: str, b: Fraction) -> Fraction | None:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case _:
            return a / b if b else None


@cache
def moves(numbers: Numbers) -> tuple[tuple[str, Numbers], ...]:
    """Every legal move and what it leaves; of several moves with one outcome the first."""
    found: dict[Numbers, str] = {}
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
            for op in "+-*/" if i < j else "-/":
                result = calculate(a, op, b)
                if result is not None:
                    found.setdefault(tuple(sorted([*rest, result])), f"{a} {op} {b} = {result}")
    return tuple((text, after) for after, text in found.items())


def solvable(numbers: Numbers) -> bool:
    """Whether 24 can be reached, by exhaustion."""
    return count_solutions(numbers) > 0


def count_solutions(numbers: Numbers) -> int:
    """Distinct sequences of states that end in 24."""
    return counting.count_solutions(tuple(sorted(number.as_integer_ratio() for number in numbers)))


@cache
def all_puzzles() -> tuple[str, ...]:
    """The 1,362 solvable puzzles of four numbers from 1 to 13, ascending."""
    quads = combinations_with_replacement(map(Fraction, range(LOWEST, HIGHEST + 1)), 4)
    return tuple(format_numbers(quad) for quad in quads if solvable(quad))


def reachable(puzzles: list[str], smallest: int = 2) -> set[Numbers]:
    """Every state of at least `smallest` numbers that some of `puzzles` can reach, themselves included."""
    level = {parse_numbers(puzzle) for puzzle in puzzles}
    found: set[Numbers] = set(level)
    for size in range(3, smallest - 1, -1):
        level = {after for numbers in level for _, after in moves(numbers) if len(after) == size}
        found |= level
    return found


def _published_splits(path: Path) -> dict[str, list[str]]:
    text = read_text(path, CONFIG_BYTES, "the published puzzle list", TaskError).removeprefix("\ufeff")
    try:
        rows = [Row.model_validate(row).Puzzles for row in csv.DictReader(text.splitlines())]
    except (ValidationError, csv.Error) as error:
        raise TaskError(f"{path} is not the published puzzle list: no column 'Puzzles' of whole numbers "
                        f"({said(error)}); download it again") from None
    rows = [format_numbers(parse_numbers(row)) for row in rows]
    if sorted(rows) != sorted(all_puzzles()):
        raise TaskError(f"{path} is not the published puzzle list of the {len(all_puzzles())} solvable puzzles")
    return {"train": rows[:800] + rows[1000:1262], "validation": rows[800:900], "test": rows[900:1000],
            "hard": rows[1262:]}


class Row(BaseModel):
    """A line of the published list; its other columns are not read."""

    Puzzles: Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9]{1,2}( +[0-9]{1,2}){3}$",
                                              max_length=40)]


def _own_splits(seed: int) -> dict[str, list[str]]:
    by_solutions = sorted(all_puzzles(), key=lambda text: (count_solutions(parse_numbers(text)), text))
    hard, rest = by_solutions[:100], by_solutions[100:]
    random.Random(seed).shuffle(rest)
    return {"train": rest[:1062], "validation": rest[1062:1162], "test": rest[1162:], "hard": hard}


def calculator_check(state: str, chain: str, score: str) -> str | None:
    """What a pocket calculator finds wrong with a judgement, or None. It checks; it does not search.

    `chain` is "a op b = c -> numbers left . ... . end". Every move must be legal and right, and the score `sure`
    exactly when the chain ends in 24. A `sure` that passes is therefore a verified solution.
    """
    *steps, last = chain.split(" . ")
    if last.strip() != "end":
        return "not a finished chain of moves"
    try:
        numbers = parse_numbers(state)
        for step in steps:
            move, _, after = step.partition(" -> ")
            numbers = apply_move(numbers, move)
            if numbers != parse_numbers(after):
                return "wrong numbers after a move"
    except (ValueError, ZeroDivisionError):
        return "an impossible or wrong move"
    if len(numbers) > 1:
        return "the chain stops early"
    if (score == "sure") != (numbers[0] == TARGET):
        return "the score contradicts the chain"
    return None
