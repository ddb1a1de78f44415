"""The searches of treequest and its_hub over a TreeWorld, with every call counted. See `regret` for what is fair."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from stl_programs.errors import BudgetSpent, StlError
from stl_programs.records import Action, State, Task
from stl_programs.testing.tree_world import Calls, TreeWorld, WorldValue

INSTALL = "{} is not installed: pip install 'stl-programs[benchmarks]'"
IDLE = 50
"""Steps without a call after which a treequest search is over: it only visits finished leaves any more."""
PROMPT, STEP, END = "start", "\n", "!"

Answer = Callable[[TreeWorld, Task, int], str]


class Asked:
    """The fakes as a peer's user would call them: no memory of states; successors are kept where the caller says."""

    def __init__(self, environment: TreeWorld, task: Task, limit: int | None, noise: float = 0.2):
        self.environment, self.task, self.calls = environment, task, Calls(limit)
        self.value = WorldValue(noise)

    def successors(self, state: State) -> list[State]:
        """One call."""
        self.calls.spend(self.task)
        return [transition.state for _, transition in self.environment.successors(state)]

    def judge(self, state: State) -> float:
        """One call."""
        self.calls.spend(self.task)
        return self.value.guess(self.environment, state)

    def best(self, found: list[tuple[State, float]]) -> str:
        """The answer of the best leaf; without one, of the best of the deepest."""
        if not found:
            return self.environment.answer(self.task, self.environment.reset(self.task))
        state, _ = max(found, key=lambda one: (len(one[0].history), one[1]))
        return self.environment.answer(self.task, state)


# treequest


class TreeNode:
    """A node's state as treequest's user keeps it: the world's state, and which of its successors are left to draw."""

    def __init__(self, state: State):
        self.state = state
        self.named: list[State] = []
        self.left: list[State] = []


def treequest_answer(make: Callable[[], Any], again: str, environment: TreeWorld, task: Task, limit: int) -> str:
    """Search by `step`s until the calls are spent.

    Args:
        again: what a finished leaf that is to be expanded returns: its "score", or 0 to be "left".
    """
    asked, root = Asked(environment, task, limit), TreeNode(environment.reset(task))

    def generate(parent: TreeNode | None) -> tuple[TreeNode, float]:
        node = root if parent is None else parent
        if node.state.terminal:
            return node, asked.value.guess(environment, node.state) if again == "score" else 0.0
        if not node.named:
            node.named = asked.successors(node.state)
        if not node.left:
            node.left = list(node.named)
        child = TreeNode(node.left.pop(0))
        return child, asked.judge(child.state)

    algorithm = make()
    tree, idle, before = algorithm.init_tree(), 0, 0
    while idle < IDLE:
        try:
            tree = algorithm.step(tree, {"next": generate}, inplace=True)
        except BudgetSpent:
            break
        idle, before = idle + 1 if asked.calls.made[task.id] == before else 0, asked.calls.made[task.id]
    return asked.best([(node.state, score) for node, score in algorithm.get_state_score_pairs(tree)])


def _seeded(answer: Answer) -> Answer:
    """AB-MCTS draws from the global generators: seed them by the world."""

    def seeded(environment: TreeWorld, task: Task, limit: int) -> str:
        import numpy as np

        random.seed(int(task.text))
        np.random.seed(int(task.text))
        return answer(environment, task, limit)

    return seeded


def treequest_searches() -> dict[str, Answer]:
    """Every search of treequest that runs without pymc, over its settings."""
    made: dict[str, Callable[[], Any]] = {}
    for samples, weight in product((2, 5), (0.05, 0.2, 0.5, 2 ** 0.5)):
        made[f"standard MCTS, {samples} samples, weight {weight:.3g}"] = partial(
            peer, "treequest", "StandardMCTS", samples_per_action=samples, exploration_weight=weight)
    for samples in (2, 3, 5):
        made[f"best-first, {samples} samples"] = partial(
            peer, "treequest.algos.best_first_search", "BestFirstSearchAlgo", num_samples=samples)
    for breadth in (1, 2, 3, 5):
        made[f"tree of thoughts, breadth {breadth}"] = partial(
            peer, "treequest", "TreeOfThoughtsBFSAlgo", breadth_limit=breadth, size_limit=5)
    for kind in ("gaussian", "beta"):
        made[f"AB-MCTS-A, {kind}"] = partial(peer, "treequest", "ABMCTSA", dist_type=kind)
    return {f"{name}, leaves {again}": _seeded(partial(treequest_answer, make, again))
            for name, make in made.items() for again in ("score", "left")}


# its_hub


def its_hub_answer(make: Callable[[Any, Any], Any], multiple: int, whole: bool, environment: TreeWorld,
                   task: Task, limit: int) -> str:
    """Infer with the largest budget (a multiple of `multiple`) that the calls cover; trials with larger ones are free.

    A response is a move a line; `whole` ones are generated at once. Prompts of one batch with equal beginnings are one
    question and get distinct moves.
    """
    api = imported("its_hub.api")
    generation = imported("its_hub.core.lms.step_generation").StepGeneration(
        max_steps=environment.max_depth, step_token=STEP, stop_token=END)
    units = limit if whole else limit // (environment.max_depth - 1)
    while units >= multiple:
        units -= units % multiple
        asked = Asked(environment, task, None)
        random.seed(int(task.text))
        model, reward = _fakes(api, asked)
        result = asyncio.run(make(generation, reward).ainfer(model, PROMPT, units, return_response_only=False))
        made = asked.calls.made[task.id]
        if made <= limit:
            return environment.answer(task, state_of(environment, task, result.the_one["content"]))
        units = min(units - 1, int(1.05 * units * limit / made) + 1)
    return environment.answer(task, environment.reset(task))


def state_of(environment: TreeWorld, task: Task, text: str) -> State:
    """The state that the moves of a response lead to."""
    state = environment.reset(task)
    for move in text.replace(END, "").split():
        state = environment.step(state, Action(move)).state
    return state


def _fakes(api: Any, asked: Asked) -> tuple[Any, Any]:
    """A language model and a reward model of its_hub's interfaces over `asked`."""

    class Model(api.AbstractLanguageModel):
        async def agenerate(self, messages: Any, stop: str | None = None, **_: Any) -> list[dict[str, str]]:
            left: dict[str, list[State]] = {}
            named: dict[str, list[State]] = {}
            replies = []
            for chat in messages:
                text = chat[-1].content if chat[-1].role == "assistant" else ""
                if text not in named:
                    named[text] = asked.successors(state_of(asked.environment, asked.task, text))
                if not left.get(text):
                    left[text] = random.sample(named[text], len(named[text]))
                replies.append(_reply(left[text].pop()))
            return replies

        async def agenerate_single(self, messages: Any, stop: str | None = None, **_: Any) -> dict[str, str]:
            """A whole response, at random, for one call."""
            asked.calls.spend(asked.task)
            state = asked.environment.reset(asked.task)
            while not state.terminal:
                state = random.choice(asked.environment.successors(state))[1].state
            return {"role": "assistant", "content": STEP.join(state.history)}

    class Reward(api.AbstractProcessRewardModel):
        def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
            return [asked.judge(state_of(asked.environment, asked.task, text)) for text in steps]

        async def ascore(self, prompt_or_messages: Any, steps: Any = None, orchestrator: Any = None) -> list[float]:
            if steps is None:  # conversations of best-of-n
                steps = [conversation[-1].content for conversation in prompt_or_messages]
            return self.score(prompt_or_messages, steps)

    return Model(), Reward()


def _reply(state: State) -> dict[str, str]:
    return {"role": "assistant", "content": state.history[-1] + (END if state.terminal else "")}


class _Plain:
    """An orchestrator for best-of-n, without threads."""

    async def agenerate(self, lm: Any, messages_lst: Any, **_: Any) -> list[dict[str, str]]:
        return [await lm.agenerate_single(messages) for messages in messages_lst]


def its_hub_searches() -> dict[str, Answer]:
    """Beam search, particle filtering and best-of-n."""
    def beam(width: int, steps: Any, reward: Any) -> Any:
        return peer("its_hub.core.algorithms.beam_search", "BeamSearch", steps, reward, beam_width=width)

    def particles(kind: str, steps: Any, reward: Any) -> Any:
        return peer("its_hub.core.algorithms.particle_gibbs", kind, steps, reward)

    def best_of_n(steps: Any, reward: Any) -> Any:
        return peer("its_hub.core.algorithms.bon", "BestOfN", reward, _Plain())

    found: dict[str, Answer] = {}
    for width in (1, 2, 3, 4):
        found[f"beam search, width {width}"] = partial(its_hub_answer, partial(beam, width), width, False)
    found["particle filtering"] = partial(its_hub_answer, partial(particles, "ParticleFiltering"), 1, False)
    found["entropic particle filtering"] = partial(
        its_hub_answer, partial(particles, "EntropicParticleFiltering"), 1, False)
    found["best of n"] = partial(its_hub_answer, best_of_n, 1, True)
    return found


def peer(module: str, name: str, *arguments: Any, **options: Any) -> Any:
    """An object of a peer's class."""
    return getattr(imported(module), name)(*arguments, **options)


def imported(name: str) -> Any:
    """A module of a peer. Raises StlError where it is not installed."""

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise StlError(INSTALL.format(name.partition(".")[0])) from error


PEERS: dict[str, Callable[[], dict[str, Answer]]] = {
    "treequest": treequest_searches, "its_hub": its_hub_searches}
