"""Word problems of two steps, reasoned in free text: no action can be listed, and the last line is the state."""

from __future__ import annotations

import random
import re

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import Environment
from stl_programs.errors import TaskError
from stl_programs.records import Action, State, Task, Transition
from tests.stl_programs.environments.own_worlds.prompts import chat, inputs, lookahead, wants

QUESTION = "Ann has {} pears, buys {} boxes of {} pears and gives {} away. How many pears has she left?"
NUMBERS = [(3, 2, 5, 1), (10, 4, 3, 2), (7, 1, 9, 8), (2, 6, 6, 3), (5, 5, 5, 5), (1, 2, 3, 4)]


class WordProblems(Environment):
    """A sentence a step, until one says what the answer is."""

    name, max_depth, scale = "word problems", 4, NumberScale(1, 10)
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def task(self, text: str) -> Task:
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        return [self.task(QUESTION.format(*numbers)) for numbers in NUMBERS]

    def reset(self, task: Task) -> State:
        return State("(nothing was said yet)", "")

    def step(self, state: State, action: Action) -> Transition:
        if state.terminal or not action.text.strip():
            raise TaskError(f"{action.text!r}: say a step, and none after the answer")
        after = state.then(action.text, action.text, f"{state.key}\n{action.text}",
                           terminal="answer is" in action.text)
        return Transition(after, after.terminal)

    def answer(self, task: Task, state: State) -> str:
        said = re.findall(r"-?\d+", state.history[-1]) if state.history else []
        return said[-1] if said else ""

    def _score(self, task: Task, answer: str) -> float:
        return float(answer == str(right(task.text)))


def right(question: str) -> int:
    first, boxes, each, given = map(int, re.findall(r"\d+", question))
    return first + boxes * each - given


def reply(messages, seed: int) -> str:
    """Calculates, with a slip now and then; judges by calculating again."""
    asked = inputs(messages)
    first, boxes, each, given = map(int, re.findall(r"\d+", asked["task"]))
    rng = random.Random(f"{seed} {asked['task']} {asked['trajectory']}")
    said = [int(number) for number in re.findall(r"= (-?\d+)", asked["trajectory"])]
    if wants(messages, "actions"):
        def slip() -> int:
            return rng.choice([0, 0, 1])
        if not said:
            return chat(actions=[f"The {boxes} boxes hold {boxes} * {each} = {boxes * each + slip()} pears,\nI think."
                                 for _ in range(3)])
        left = first + said[-1] - given
        return chat(actions=[f"So {first} + {said[-1]} - {given} = {left}. The answer is {left + slip()}."
                             for _ in range(3)])
    wrong = bool(said) and said[0] != boxes * each
    if "answer is" in asked["state"]:
        wrong = int(re.findall(r"-?\d+", asked["state"])[-1]) != right(asked["task"])
    return lookahead(messages, rationale="The sum was done again.", score=str(rng.choice([1, 2] if wrong else [9, 10])))
