"""The 8-puzzle: moves that can be listed, and a graph with cycles; a fake that plays it by counting."""

from __future__ import annotations

import random

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import Environment
from stl_programs.errors import TaskError
from stl_programs.records import Action, State, Task, Transition
from tests.stl_programs.environments.own_worlds.prompts import chat, inputs, lookahead, wants

GOAL = "12345678_"
BESIDE = {i: [j for j in range(9) if abs(i // 3 - j // 3) + abs(i % 3 - j % 3) == 1] for i in range(9)}


class Puzzle(Environment):
    """Slide tiles into the hole until they stand in order. A task is its board, row by row."""

    name, max_depth, scale, cyclic, task_free_values = "8-puzzle", 8, NumberScale(1, 10), True, True
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def task(self, text: str) -> Task:
        if sorted(text) != sorted(GOAL):
            raise TaskError(f"{text!r} is no board: write each of {GOAL} once")
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        return [self.task(text) for text in ("1234567_8", "123456_78", "12345_786", "1_3425786", "123_46758")]

    def reset(self, task: Task) -> State:
        return State(rows(task.text), task.text, terminal=task.text == GOAL)

    def legal_actions(self, state: State) -> list[Action]:
        return [] if state.terminal else [Action(f"slide {state.key[i]}") for i in BESIDE[state.key.index("_")]]

    def step(self, state: State, action: Action) -> Transition:
        if action not in self.legal_actions(state):
            raise TaskError(f"{action.text!r} is not possible here")
        tile = action.text.removeprefix("slide ")
        board = state.key.translate(str.maketrans({tile: "_", "_": tile}))
        return Transition(state.then(action.text, rows(board), board, terminal=board == GOAL), board == GOAL)

    def answer(self, task: Task, state: State) -> str:
        return "; ".join(state.history)

    def _score(self, task: Task, answer: str) -> float:
        state = self.reset(task)
        try:
            for text in filter(None, answer.split("; ")):
                state = self.step(state, Action(text)).state
        except TaskError:
            return 0.0
        return float(state.terminal)


def rows(board: str) -> str:
    return "\n".join(" ".join(board[i:i + 3]) for i in (0, 3, 6))


def distance(board: str) -> int:
    """Steps that the tiles are from their places, one by one."""
    return sum(abs(i // 3 - GOAL.index(tile) // 3) + abs(i % 3 - GOAL.index(tile) % 3)
               for i, tile in enumerate(board) if tile != "_")


def reply(messages, seed: int) -> str:
    """Now and then no answer, some moves that are impossible, and a distance that is off by one."""
    board = "".join(inputs(messages)["state"].split())
    rng = random.Random(f"{seed} {board}")
    if rng.random() < 0.05:
        return "I'm sorry, I can't help with that."
    if wants(messages, "actions"):
        moves = [f"slide {board[i]}" for i in BESIDE[board.index("_")]]
        return chat(actions=rng.sample([*moves, "slide 9"], len(moves) + 1))
    score = min(max(10 - distance(board) + rng.choice([-1, 0, 0, 1]), 1), 10)
    return lookahead(messages, rationale=f"The tiles are {distance(board)} steps from home.", score=f"{score}")
