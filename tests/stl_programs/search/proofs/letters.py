"""A world to calculate by hand: words over a few letters, a policy with known probabilities, a value by table."""

from __future__ import annotations

from math import log

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import BasePolicy, BaseValue, Environment, Proposal, engine
from stl_programs.errors import TaskError
from stl_programs.records import Action, State, Task, Transition, ValueEstimate


class Letters(Environment):
    """Append a letter, two or three times; a task is its alphabet."""

    name, max_depth, scale = "letters", 2, NumberScale(0, 1)
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def __init__(self, max_depth: int = 2):
        self.max_depth = max_depth

    def task(self, text: str) -> Task:
        return Task(text, text)

    def reset(self, task: Task) -> State:
        return State("", data=task.text)

    def legal_actions(self, state: State) -> list[Action]:
        return [] if state.terminal else [Action(letter) for letter in state.data]

    def step(self, state: State, action: Action) -> Transition:
        if action not in self.legal_actions(state):
            raise TaskError(f"{action.text!r} is no letter of {state.data}")
        word = state.text + action.text
        ended = len(word) == self.max_depth
        return Transition(state.then(action.text, word, terminal=ended, data=state.data), ended)

    def answer(self, task: Task, state: State) -> str:
        return state.text

    def _score(self, task: Task, answer: str) -> float:
        return float(answer == "".join(sorted(task.text)))


class Likely(BasePolicy):
    """Every letter, with the probability that `odds` says."""

    def __init__(self, odds: dict[str, float]):
        super().__init__()
        self.odds = odds

    async def aforward(self, situation, count=None, exclude=(), draw=0):
        env, state = situation.environment, situation.state
        letters = [action for action in env.legal_actions(state) if action.text not in exclude][:count]
        return [Proposal(action, await engine.take(env, situation.task, state, action), None,
                         log(self.odds[action.text])) for action in letters]


class Table(BaseValue):
    """The worth of a word, 0 where it is not in the table; remembers what it was asked."""

    def __init__(self, worth: dict[str, float]):
        super().__init__()
        self.worth, self.asked = worth, list[str]()

    async def estimate(self, situation):
        word = situation.state.text
        self.asked.append(word)
        return ValueEstimate(self.worth.get(word, 0.0), f"{word} was looked up")


def expanded(tree) -> list[str]:
    """The words that were expanded, in that order."""
    parents = [tree.nodes[node.parent].state.text for node in tree.nodes[1:]]
    return list(dict.fromkeys(parents))
