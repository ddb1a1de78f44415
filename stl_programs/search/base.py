"""What every search program is: a dspy.Module with an environment, a policy and a value."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, get_args

import dspy

from signatures import CompareStates, JudgeSiblings, lookahead_variant, signature_version
from stl_programs import engine, models
from stl_programs.engine import Budget
from stl_programs.environments.base import Environment
from stl_programs.errors import AdapterError, BudgetSpent, ModelError, StlError
from stl_programs.models import Model
from stl_programs.models.formats import choose_format
from stl_programs.policies import LegalMoves, Policy, Proposal
from stl_programs.records import Information, Task, ValueEstimate
from stl_programs.tree import Found, Node, Tree
from stl_programs.values import BaseValue, Oracle, PairwiseValue, PerDepth, SiblingValue, Uniform, Value


class SearchProgram(dspy.Module):
    """Base of the searches. Subclasses write `grow`, and `choose` where the answer is not the best kept leaf.

    Args:
        environment: the task family.
        policy: proposes actions (`Policy`, `LegalMoves` or a module of the same call).
        value: judges states (`Value`, `Uniform`, `Oracle` or another `BaseValue`).
        seed: of all draws and tie-breaks.
        budget: of every task. When it is spent the search ends with its best answer so far.
    """

    settings: tuple[str, ...] = ()
    """Names of the subclass's own constructor arguments, for save and load."""

    def __init__(self, environment: Environment, policy: dspy.Module, value: BaseValue, *, seed: int = 0,
                 budget: Budget | None = None):
        super().__init__()
        self.environment, self.policy, self.value, self.seed, self.budget = environment, policy, value, seed, budget
        self._range = environment.scale.bottom, environment.scale.top

    @property
    def information(self) -> Information:
        """What the search may see: the most that its policy or its value may.

        In a reward-free one a call to the environment's reward raises.
        """
        order = get_args(Information)
        return max((module.information for module in (self.policy, self.value)), key=order.index)

    @abstractmethod
    async def grow(self, tree: Tree) -> None:
        """Search: add to `tree` until the algorithm is finished. May be ended at any await when a budget is spent."""

    def choose(self, tree: Tree) -> Node:
        """The leaf that is answered with: the best finished one that was kept, else the best of the deepest states.

        Where a budget ended the search, the deepest may have been judged and not been kept yet.
        """
        nodes = [node for node in tree.nodes if node.kept] + [
            node for node in tree.nodes if not node.kept and node.estimate is not None]
        leaves = [node for node in nodes if node.state.terminal]
        deepest = max(node.depth for node in nodes)
        [leaf] = self.best(tree, [node for node in leaves if node.kept] or leaves or [
            node for node in nodes if node.depth == deepest], 1)
        return leaf

    async def search(self, task: Task) -> Found:
        """Search one task within its budget. Raises StlError when it cannot be finished."""
        tree, ended = Tree(task, self.environment.reset(task)), None
        try:
            async with engine.context().until_deadline():
                await self.grow(tree)
        except BudgetSpent as spent:
            ended = str(spent)
        leaf = self.choose(tree)
        answer = self.environment.answer(task, leaf.state)
        tree.about = {"program": type(self).__name__, "information": self.information, "answer": answer,
                      "chosen": leaf.id, "ended": ended}
        return Found(tree, leaf, answer, ended)

    async def aforward(self, task: str | Task) -> dspy.Prediction:
        """Search one task.

        Returns a dspy.Prediction: answer, trajectory (list of actions), tree, usage (per module), cost in dollars
        (None where a price is unknown), ended (the budget that ended the search, or None). Raises StlError for a bad
        task or a model that fails.
        """
        checked = task if isinstance(task, Task) else self.environment.task(task)
        self.check()
        [result] = await engine.run_tasks(self, [checked], seed=self.seed, keep_trees=True)
        if result.error:
            raise StlError(f"task {checked.id!r} failed: {result.error}")
        prices = [usage["dollars"] for usage in result.usage.values()]
        return dspy.Prediction(
            answer=result.answer, trajectory=result.trajectory, tree=Tree.from_dict(result.tree or {}),
            usage=result.usage, cost=None if None in prices else sum(prices), ended=result.ended)

    def forward(self, task: str | Task) -> dspy.Prediction:
        """`aforward` from ordinary code."""
        return engine.run_sync(self.aforward(task))

    def models(self) -> list[Model]:
        """The models of the policy and the value."""
        return [models.load(module.predict.lm or module.lm) for module in self._asking()]

    def _asking(self) -> list[Any]:
        """The modules that call a model."""
        return [module for _, module in self.named_sub_modules() if hasattr(module, "predict")]

    def check(self) -> None:
        """Raises ModelError when a model of this program cannot be reached, or its price is needed and unknown.

        AdapterError where an adapter would be asked in a prompt format that it was not trained on.
        """
        for module, model in zip(self._asking(), self.models(), strict=True):
            choose_format(getattr(module, "format", None), model)
            model.check(getattr(module, "max_tokens", 0))
            for budget in (self.budget, getattr(module, "budget", None)):
                if budget and budget.dollars is not None and model.prices() is None:
                    raise ModelError(f"Budget(dollars={budget.dollars:g}): the price of {model.name} is unknown; "
                                     "register it with litellm.register_model, or limit tokens instead")

    # Parts that searches share

    async def expand(self, tree: Tree, node: Node, count: int | None = None) -> list[Node]:
        """Add up to `count` (None: as many as the policy gives) new successors of `node`, judged all together.

        Returns all children. Two rounds of calls: proposals, then values. None for a terminal state.
        """
        if node.state.terminal or (node.expanded and count is None):
            return tree.children(node)
        known = tree.children(node)
        children = [tree.add(node, step.state.history[-1], step.state)
                    for _, step in await self.propose(tree, node, count)]
        await self.judge(tree, children)
        return known + children

    async def propose(self, tree: Tree, node: Node, count: int | None = None) -> list[Proposal]:
        """Up to `count` (None: as many as the policy gives) new successors of `node`; it counts as expanded."""
        engine.context().spend_state()
        options = {} if count is None else {"count": count, "exclude": [child.action for child in tree.children(node)]}
        proposals = await self.policy.aforward(self.environment, tree.task, node.state, **options)
        node.expanded = True
        return [proposal for proposal in proposals if not proposal[0].irreversible]

    async def judge(self, tree: Tree, nodes: list[Node]) -> None:
        """Estimate the states of `nodes`, all together. Raises BudgetSpent after those that the budget covered."""
        judged = await self.value.judge(self.environment, tree.task, [node.state for node in nodes])
        spent, unit = None, self.unit
        for node, estimate in zip(nodes, judged, strict=True):
            if isinstance(estimate, BudgetSpent):
                spent = estimate
            else:
                node.estimate, node.prior = estimate, unit(estimate)
        if spent:
            raise spent

    def best(self, tree: Tree, nodes: list[Node], count: int) -> list[Node]:
        """The `count` best nodes of distinct states: missing estimates last, ties in random order."""
        if count == 1 and nodes:
            scores = [worth(node) for node in nodes]
            top = max(scores)
            if scores.count(top) == 1:
                return [nodes[scores.index(top)]]
        shuffled = list(nodes)
        engine.context().random("ties", tree.task.id, len(tree)).shuffle(shuffled)
        return distinct(sorted(shuffled, key=worth, reverse=True))[:count]

    def unit(self, estimate: ValueEstimate | None) -> float:
        """An estimate scaled to [0, 1] by the environment's scale; a missing one is worth 0."""
        if estimate is None or estimate.score is None:
            return 0.0
        low, high = self._range
        scaled = (estimate.score - low) / (high - low)
        return 0.0 if scaled < 0.0 else 1.0 if scaled > 1.0 else scaled

    # Saving: JSON beside adapter folders, never pickle

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"program": type(self).__name__, "environment": self.environment.name,
                "budget": self.budget.to_dict() if self.budget else None,
                "settings": {name: getattr(self, name) for name in self.settings},
                "policy": self.policy.dump_state(), "value": self.value.dump_state()}

    def save(self, path: str | Path, *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Write the program as JSON; adapters are copied into a folder beside it and named by their hash."""
        from stl_programs.models.registry import export_adapter

        path = Path(path)
        state = self.dump_state()
        for value in _parts(state["value"]):
            if "@" in (value.get("lm") or ""):
                value["adapter"] = export_adapter(value["lm"], path.parent / f"{path.stem}-adapters", path.parent)
        path.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def load(self, path: str | Path, *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Take over policy, value and settings of a saved program; its adapter is verified and registered.

        Raises AdapterError where the adapter is gone, was changed, or belongs to another base or signature.
        """
        from stl_programs.models.registry import import_adapter

        path = Path(path)
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["program"] != type(self).__name__ or state["environment"] != self.environment.name:
            raise StlError(f"{path} holds a {state['program']} for {state['environment']}, not a "
                           f"{type(self).__name__} for {self.environment.name}")
        for name, setting in state["settings"].items():
            setattr(self, name, setting)
        self.budget = _budget(state)
        for value in _parts(state["value"]):
            if adapter := value.get("adapter"):
                import_adapter(value["lm"], adapter, path.parent)
        self.policy = _policy(state["policy"], self.environment)
        self.value = _value(state["value"], self.environment)
        for module in self._asking():
            if "@" in str(module.lm):
                choose_format(module.format, models.load(module.lm))


def distinct(nodes: list[Node]) -> list[Node]:
    """The first node of every state."""
    first: dict[Any, Node] = {}
    for node in nodes:
        first.setdefault(node.state.key, node)
    return list(first.values())


def worth(node: Node) -> float:
    """The node's score; a missing or absent one is below all."""
    return float("-inf") if node.estimate is None or node.estimate.score is None else node.estimate.score


def _parts(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A saved value, or those that it is made of."""
    return [part for inner in value["values"] for part in _parts(inner)] if "values" in value else [value]


def _budget(state: dict[str, Any]) -> Budget | None:
    return Budget(**state["budget"]) if state["budget"] else None


def _policy(state: dict[str, Any], environment: Environment) -> dspy.Module:
    if state["kind"] == "LegalMoves":
        return LegalMoves()
    options = {name: state[name] for name in ("count", "samples", "rounds", "temperature", "max_tokens", "format")}
    policy = Policy(environment.policy_signature, state["lm"], budget=_budget(state), **options)
    policy.predict.demos = state["demos"]
    return policy


def _value(state: dict[str, Any], environment: Environment) -> BaseValue:
    kind = state["kind"]
    if kind in ("Uniform", "Oracle"):
        return {"Uniform": Uniform, "Oracle": Oracle}[kind]()
    if kind == "PerDepth":
        return PerDepth([_value(value, environment) for value in state["values"]])
    options = {name: state[name] for name in ("samples", "temperature", "max_tokens", "format")}
    options |= {"budget": _budget(state)}
    value: Any
    if kind == "SiblingValue":
        value = SiblingValue(JudgeSiblings, state["lm"], aggregate=state["aggregate"], **options)
    elif kind == "PairwiseValue":
        value = PairwiseValue(CompareStates, state["lm"], **options)
    elif kind == "Value":
        signature = environment.value_signature if state["variant"] is None else lookahead_variant(
            environment.lookahead_signature, state["variant"])
        value = Value(signature, state["lm"], aggregate=state["aggregate"], **options)
    else:
        raise StlError(f"a saved value of kind {kind!r} is not one of this package's; build the program in code and "
                       "load only its parts")
    if (now := signature_version(value.predict.signature)) != state["signature"]:
        raise AdapterError(f"the saved program speaks version {state['signature']} of its value signature; this "
                           f"installation has {now}: install the version it was saved with")
    value.predict.demos = state["demos"]
    return value
