"""What every search program is: a dspy.Module with an environment, a policy and a value."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import dspy

from signatures import lookahead_variant, signature_version
from stl_programs import engine, models
from stl_programs.environments.base import Environment
from stl_programs.errors import AdapterError, StlError
from stl_programs.policy import LegalMoves, Policy
from stl_programs.records import Task, ValueEstimate
from stl_programs.tree import Found, Node, Tree
from stl_programs.value import Oracle, Uniform, Value


class SearchProgram(dspy.Module):
    """Base of the searches. Subclasses write `search`; `forward` and `aforward` come from here.

    Args:
        environment: the task family.
        policy: proposes actions (`Policy`, `LegalMoves` or a module of the same call).
        value: judges states (`Value`, `Uniform`, `Oracle` or a module of the same call).
        seed: of all draws and tie-breaks.
    """

    settings: tuple[str, ...] = ()
    """Names of the subclass's own constructor arguments, for save and load."""

    def __init__(self, environment: Environment, policy: dspy.Module, value: dspy.Module, *, seed: int = 0):
        super().__init__()
        self.environment, self.policy, self.value, self.seed = environment, policy, value, seed

    @property
    def information(self) -> str:
        """What the search may see. In a reward-free one a call to the environment's reward raises."""
        return self.value.information

    @abstractmethod
    async def search(self, task: Task) -> Found:
        """Search one task. Raises StlError when it cannot be finished."""

    async def aforward(self, task: str | Task) -> dspy.Prediction:
        """Search one task.

        Returns a dspy.Prediction: answer, trajectory (list of actions), tree, usage (per module), cost in dollars
        (None where a price is unknown). Raises StlError for a bad task or a model that fails.
        """
        checked = task if isinstance(task, Task) else self.environment.task(task)
        self.check()
        [result] = await engine.run_tasks(self, [checked], seed=self.seed, keep_trees=True)
        if result.error:
            raise StlError(f"task {checked.id!r} failed: {result.error}")
        prices = [usage["dollars"] for usage in result.usage.values()]
        return dspy.Prediction(
            answer=result.answer, trajectory=result.trajectory, tree=Tree.from_dict(result.tree or {}),
            usage=result.usage, cost=None if None in prices else sum(prices))

    def forward(self, task: str | Task) -> dspy.Prediction:
        """`aforward` from ordinary code."""
        return engine.run_sync(self.aforward(task))

    def check(self) -> None:
        """Raises ModelError when a model of this program cannot be reached."""
        for module in (self.policy, self.value):
            if isinstance(module, Policy | Value):
                models.load(module.predict.lm or module.lm).check()

    # Parts that searches share

    async def expand(self, tree: Tree, node: Node) -> list[Node]:
        """Add the successors of `node` and judge them all together. None for a terminal state."""
        if node.state.terminal or node.expanded:
            return tree.children(node)
        proposals = await self.policy.aforward(self.environment, tree.task, node.state)
        node.expanded = True
        children = [tree.add(node, step.state.history[-1], step.state)
                    for action, step in proposals if not action.irreversible]
        estimates = await asyncio.gather(
            *(self.value.aforward(self.environment, tree.task, child.state) for child in children))
        for child, estimate in zip(children, estimates, strict=True):
            child.estimate = estimate
        return children

    def best(self, tree: Tree, nodes: list[Node], count: int) -> list[Node]:
        """The `count` best nodes of distinct states: missing estimates last, ties in random order."""
        shuffled = list(nodes)
        engine.context().random("ties", tree.task.id, len(tree)).shuffle(shuffled)
        return distinct(sorted(shuffled, key=lambda node: _worth(node.estimate), reverse=True))[:count]

    # Saving: JSON beside adapter folders, never pickle

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"program": type(self).__name__, "environment": self.environment.name,
                "settings": {name: getattr(self, name) for name in self.settings},
                "policy": self.policy.dump_state(), "value": self.value.dump_state()}

    def save(self, path: str | Path, *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Write the program as JSON; adapters are copied into a folder beside it and named by their hash."""
        from stl_programs.adapters import export_adapter

        path = Path(path)
        state = self.dump_state()
        name = state["value"].get("lm")
        if name and "@" in name:
            state["value"]["adapter"] = export_adapter(name, path.parent / f"{path.stem}-adapters", path.parent)
        path.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def load(self, path: str | Path, *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Take over policy, value and settings of a saved program; its adapter is verified and registered.

        Raises AdapterError where the adapter is gone, was changed, or belongs to another base or signature.
        """
        from stl_programs.adapters import import_adapter

        path = Path(path)
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["program"] != type(self).__name__ or state["environment"] != self.environment.name:
            raise StlError(f"{path} holds a {state['program']} for {state['environment']}, not a "
                           f"{type(self).__name__} for {self.environment.name}")
        for name, setting in state["settings"].items():
            setattr(self, name, setting)
        if adapter := state["value"].get("adapter"):
            import_adapter(state["value"]["lm"], adapter, path.parent)
        self.policy = _policy(state["policy"], self.environment)
        self.value = _value(state["value"], self.environment)


def distinct(nodes: list[Node]) -> list[Node]:
    """The first node of every state."""
    first: dict[Any, Node] = {}
    for node in nodes:
        first.setdefault(node.state.key, node)
    return list(first.values())


def _worth(estimate: ValueEstimate | None) -> float:
    return float("-inf") if estimate is None or estimate.score is None else estimate.score


def _policy(state: dict[str, Any], environment: Environment) -> dspy.Module:
    if state["kind"] == "LegalMoves":
        return LegalMoves()
    options = {name: state[name] for name in ("count", "samples", "rounds", "temperature", "max_tokens")}
    policy = Policy(environment.policy_signature, state["lm"], **options)
    policy.predict.demos = state["demos"]
    return policy


def _value(state: dict[str, Any], environment: Environment) -> dspy.Module:
    if state["kind"] in ("Uniform", "Oracle"):
        return {"Uniform": Uniform, "Oracle": Oracle}[state["kind"]]()
    signature = environment.value_signature if state["variant"] is None else lookahead_variant(
        environment.lookahead_signature, state["variant"])
    if signature_version(signature) != state["signature"]:
        raise AdapterError(f"the saved program speaks version {state['signature']} of its value signature; this "
                           f"installation has {signature_version(signature)}: install the version it was saved with")
    options = {name: state[name] for name in ("samples", "aggregate", "temperature", "max_tokens")}
    value = Value(signature, state["lm"], **options)
    value.predict.demos = state["demos"]
    return value
