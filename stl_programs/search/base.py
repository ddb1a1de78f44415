"""What every search program is: a dspy.Module with an environment, a policy and a value."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, Literal, get_args

import dspy

from stl_programs import engine
from stl_programs.construct import checked
from stl_programs.engine import Budget
from stl_programs.environments.base import Environment, with_fields
from stl_programs.errors import BudgetSpent, ModelError, StlError
from stl_programs.models import Model
from stl_programs.models.formats import choose_format
from stl_programs.outside import parsed, shown
from stl_programs.policies import BasePolicy, LegalMoves
from stl_programs.predictor import Predictor
from stl_programs.records import Action, Information, Task, ValueEstimate
from stl_programs.saved_states import SavedModule
from stl_programs.saving import Saved
from stl_programs.search.files import load_program, write_program
from stl_programs.search.parts import best_kept_leaf, distinct, score_of, set_priors
from stl_programs.search.shown import Outcome
from stl_programs.situations import Proposal, Situation
from stl_programs.tree import Found, Node, Tree
from stl_programs.values import BaseValue
from stl_programs.values.base import judges, sound

ORDER = get_args(Information)
"""From least to most."""
DERIVED = {"task", "state", "trajectory", "observations", "last_action", "siblings", "notes"}
"""Inputs of a signature that can be read from a tree without the states' payloads."""


class SearchProgram(Saved):
    """Base of the searches. Subclasses write `grow`, and `choose` where the answer is not the best kept leaf.

    Args:
        environment: the task family.
        policy: proposes actions (`Policy`, `LegalMoves` or another `BasePolicy`).
        value: judges states (`Value`, `Uniform`, `Oracle` or another `BaseValue`).
        seed: of all draws and tie-breaks.
        budget: of every task. When it is spent the search ends with its best answer so far.
        expand: "all" looks one step beyond every judged state, once the search is over: more to learn from, the same
            answer.

    Raises TypeError for a part that is no policy or value, or says nothing.

    Example:
        >>> class Random(SearchProgram):
        ...     async def grow(self, tree):
        ...         node = tree.root
        ...         while (children := await self.expand(tree, node)):
        ...             node = engine.context().random(node.id).choice(children)
        ...             node.kept = True
    """

    settings: tuple[str, ...] = ("seed", "budget", "expand_what")
    """Names of attributes that are saved; a subclass adds those of its own arguments."""
    arguments = {"expand_what": "expand"}  # noqa: RUF012

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.settings = tuple(dict.fromkeys((*SearchProgram.settings, *cls.settings)))

    @checked
    def __init__(self, environment: Environment, policy: BasePolicy, value: BaseValue, *, seed: int = 0,
                 budget: Budget | None = None, expand: Literal["kept", "all"] = "kept"):
        super().__init__()
        if type(self).grow is SearchProgram.grow and type(self).search is SearchProgram.search:
            raise TypeError(f"{type(self).__name__} lacks its search: write `async def grow(self, tree)`")
        if not isinstance(environment, Environment):
            raise TypeError(f"environment={type(environment).__name__}: pass an Environment, like GameOf24()")
        if not isinstance(policy, BasePolicy) or type(policy).aforward is BasePolicy.aforward:
            raise TypeError(f"policy={type(policy).__name__}: a policy is a BasePolicy with `async def aforward(self, "
                            "situation, count=None, exclude=(), draw=0)`; a dspy module is called inside of one")
        if not isinstance(value, BaseValue) or not judges(value):
            raise TypeError(f"value={type(value).__name__}: a value is a BaseValue with `async def estimate(self, "
                            "situation)`, or with `aforward(situations)` where it judges siblings together")
        self.environment, self.policy, self.value = environment, policy, value
        self.seed, self.budget, self.expand_what = seed, budget, expand

    @property
    def information(self) -> Information:
        """What the search may see: the most that its policy or its value may.

        In a reward-free one a call to the environment's reward raises.
        """
        return max(self.policy.information, self.value.information, key=ORDER.index)

    async def grow(self, tree: Tree) -> None:
        """Search: add to `tree` until the algorithm is finished. May be ended at any await when a budget is spent."""
        raise NotImplementedError(f"{type(self).__name__} has no grow(tree)")

    def choose(self, tree: Tree) -> Node:
        """The leaf that is answered with."""
        return best_kept_leaf(self, tree)

    async def search(self, task: Task) -> Found:
        """Search one task within its budget. Raises StlError when it cannot be finished."""
        tree = Tree(task, await engine.begin(self.environment, task), self.environment)
        spent: BudgetSpent | None = None
        self._check_inputs(tree)
        try:
            async with engine.context().until_deadline():
                await self.grow(tree)
        except BudgetSpent as error:
            spent = error
        ended, leaf = None if spent is None else str(spent), self.choose(tree)
        if self.expand_what == "all" and spent is None:
            with contextlib.suppress(BudgetSpent):
                await self.expand_rest(tree)
        self._record_inputs(tree)
        answer = self.environment.answer(task, leaf.state)
        tree.about = {"program": type(self).__name__, "information": self.information, "answer": answer,
                      "chosen": leaf.id, "ended": ended}
        if leaf.state.untaken:
            tree.about["untaken"] = leaf.action
        if not tree.root.children and not tree.root.state.terminal:
            engine.context().note(engine.NO_CHOICE)
        return Found(tree, leaf, answer, ended, None if spent is None else spent.owner)

    async def commit(self, found: Found) -> Found:
        """Take the chosen action that cannot be undone, at the end of `found`. Unchanged where there is none."""
        leaf = found.leaf
        if not leaf.state.untaken or leaf.parent is None:
            return found
        environment, task = self.environment, found.tree.task
        step = await engine.commit(environment, task, found.tree.nodes[leaf.parent].state,
                                   Action(leaf.action or "", irreversible=True))
        leaf.state = step.state
        found.tree.about.pop("untaken", None)
        found.tree.about["answer"] = answer = environment.answer(task, step.state)
        return replace(found, answer=answer, committed=leaf.action)

    async def aforward(self, task: str | Task, *, commit: bool = False, progress: bool = False,
                       **fields: Any) -> dspy.Prediction:
        """Search one task.

        Args:
            commit: take the chosen action for good where it cannot be undone; else the prediction says what was not
                taken.
            progress: show a live line.
            fields: further inputs that signatures may name.

        Returns a dspy.Prediction: answer, trajectory (list of actions), tree, usage (per module), cost in dollars
        (None where a price is unknown), ended (the budget that ended the search, or None), untaken, committed, notes.
        Raises StlError for a bad task or a model that fails.
        """
        checked = with_fields(task if isinstance(task, Task) else self.environment.task(task), fields)
        self.check()
        [result] = await engine.run_tasks(self, [checked], seed=self.seed, keep_trees=True, commit=commit,
                                          progress=engine.show_progress if progress else None)
        if result.error:
            raise StlError(f"task {checked.id!r} failed: {result.error}")
        return Outcome.of(result)

    def forward(self, task: str | Task, *, commit: bool = False, progress: bool = False,
                **fields: Any) -> dspy.Prediction:
        """`aforward` from ordinary code."""
        return engine.run_sync(self.aforward(task, commit=commit, progress=progress, **fields))

    # What it asks

    def predictors_asked(self) -> list[Predictor]:
        """The predictors of the policy and the value."""
        return [predictor for _, predictor in self.named_sub_modules(Predictor)]

    def models(self) -> list[Model]:
        """The models of the policy and the value."""
        return [predictor.model for predictor in self.predictors_asked()]

    def check(self) -> None:
        """Raises ModelError when a model of this program cannot be reached, or its price is needed and unknown.

        AdapterError where an adapter would be asked in a prompt format that it was not trained on; StlError for parts
        that do not fit the environment.
        """
        if isinstance(self.policy, LegalMoves) and not self.environment.listable:
            raise StlError(f"the actions of {self.environment.name} cannot be listed, so LegalMoves cannot propose "
                           "them; use a Policy")
        for predictor in self.predictors_asked():
            model = predictor.model
            choose_format(predictor.format, model)
            model.check(predictor.sampling[1])
            predictor.check_reads()
            for budget in (self.budget, predictor.budget):
                if budget and budget.dollars is not None and model.prices() is None:
                    raise ModelError(f"Budget(dollars={budget.dollars:g}): the price of {model.name} is unknown; "
                                     "register it with litellm.register_model, or limit tokens instead")
        if self.budget is not None and self.budget.counts_calls:
            self.check_counted()

    def check_counted(self) -> None:
        """Raises StlError for a part whose calls no budget of calls, tokens or dollars would count."""
        for name, module in self.named_sub_modules(dspy.Predict):
            if not isinstance(module, Predictor):
                raise StlError(f"{name} is a plain dspy.Predict, whose calls no budget counts; use "
                               "stl_programs.Predictor in its place, or leave the budget out")

    def _check_inputs(self, tree: Tree) -> None:
        """Raises StlError, before anything is asked, for an input that the environment does not know."""
        for module in (self.policy, self.value):
            predictor = getattr(module, "predict", None)
            if isinstance(predictor, Predictor):
                given = {"not_allowed": [], "count": 1, "states": [], "first": "", "second": ""}
                predictor.inputs(tree.situation(tree.root), **given)

    def _record_inputs(self, tree: Tree) -> None:
        """Keep what a lookahead signature asks about expanded and finished states, where the tree alone cannot say."""
        environment, value = self.environment, self.value
        if not hasattr(value, "predict") and not hasattr(value, "values"):
            return
        wanted = set(environment.lookahead_signature.input_fields)
        wanted |= {name for judge in environment.judges.values() if judge.lookahead
                   for name in judge.lookahead.input_fields}
        if type(environment).fields is Environment.fields and wanted <= DERIVED:
            return
        for node in tree.nodes:
            if node.expanded or node.state.terminal:
                situation = tree.situation(node)
                known = environment.fields(situation)
                page = environment.page(situation)
                node.inputs = {name: _plain(known[name]) for name in wanted if name in known} | (
                    {"page": page} if page else {})

    # Parts that searches share

    async def expand(self, tree: Tree, node: Node, count: int | None = None) -> list[Node]:
        """Add up to `count` (None: as many as the policy gives) new successors of `node`, judged all together.

        Returns all children. Two rounds of calls: proposals, then values. None for a terminal state. Two that expand
        one state at once share the work; with `count`, one adds after the other.
        """
        if node.state.terminal or (node.expanded and count is None and tree.complete(node)):
            return tree.children(node)
        current, every, some = engine.context(), ("expand", id(tree), node.id), ("expand some", id(tree), node.id)
        if count is not None:
            await current.settled(every, some)
            return await current.joined(some, self._expand, tree, node, count)
        if some in current.memory:
            await current.settled(some)
        return await current.joined(every, self._expand, tree, node, None)

    async def expand_each(self, tree: Tree, nodes: list[Node]) -> list[list[Node]]:
        """`expand` for all of `nodes`, side by side; no other work may add to the tree meanwhile.

        New states are numbered in the order of `nodes`, whichever call ends first.
        """
        start = len(tree)
        families = await engine.together(*(self.expand(tree, node) for node in nodes))
        tree.renumber([child for family in families for child in family if child.id >= start])
        return families

    async def _expand(self, tree: Tree, node: Node, count: int | None) -> list[Node]:
        known = tree.children(node)
        if known and count is None and node.listed:
            children = known
        else:
            children = self.add(tree, node, await self.propose(tree, node, count))
        if count is None:
            node.listed = True
        await self.judge(tree, [child for child in children if child.estimate is None])
        return tree.children(node) if known else children

    async def propose(self, tree: Tree, node: Node, count: int | None = None, draw: int = 0) -> list[Proposal]:
        """Up to `count` (None: as many as the policy gives) new successors of `node`; it counts as expanded.

        `draw` above 0: an independent attempt, which may propose what is a child already. In a world whose graph has
        cycles, states that are on the path already are left out.
        """
        engine.context().spend_state()
        exclude = [] if draw or not node.children else [child.action or "" for child in tree.children(node)]
        situation = self.situation(tree, node)
        proposals = await self.policy.aforward(situation, count, exclude, draw)
        if self.environment.cyclic:
            proposals = await self._ahead(tree, node, situation, proposals, count, exclude, draw)
        node.expanded = True
        if not proposals and not tree.children(node):
            engine.context().note("states without a proposal")
        return proposals

    def situation(self, tree: Tree, node: Node) -> Situation:
        """What the policy sees of `node`; override it to show more, as notes, or what was tried there as siblings."""
        return tree.situation(node)

    async def _ahead(self, tree: Tree, node: Node, situation: Situation, proposals: list[Proposal], count: int | None,
                     exclude: list[str], draw: int) -> list[Proposal]:
        """Those of `proposals` that do not lead back to the path.

        Where none is left, or fewer than the `count` that is wanted, the policy is asked again without those that lead
        back.
        """
        visited = {before.state.key for before in tree.path(node)}
        while True:
            back = [one.action.text for one in proposals if one.transition.state.key in visited]
            ahead = [one for one in proposals if one.transition.state.key not in visited]
            if set(back) <= set(exclude) or (ahead and count is None):
                return ahead
            exclude = [*exclude, *back]
            proposals = await self.policy.aforward(situation, count, exclude, draw)

    def add(self, tree: Tree, node: Node, proposals: list[Proposal]) -> list[Node]:
        """The proposals as children of `node`; where the policy gave log-probabilities, with priors."""
        children = tree.add_all(node, proposals)
        for child in children:
            if child.logprob is not None:
                set_priors(tree.children(node))
                break
        return children

    async def sample(self, tree: Tree, node: Node, draw: int) -> Node | None:
        """One more child of `node`, drawn independently of those of another `draw`; not judged. None without any."""
        proposals = await self.propose(tree, node, 1, draw)
        return self.add(tree, node, proposals)[0] if proposals else None

    async def expand_rest(self, tree: Tree) -> None:
        """Expand every judged state that the search did not, once per state."""
        seen = {node.state.key for node in tree.nodes if node.expanded}
        rest = [node for node in tree.nodes if node.estimate is not None and not node.estimate.missing
                and not node.state.terminal and node.depth < self.environment.max_depth]
        await self.expand_each(tree, [node for node in distinct(rest) if node.state.key not in seen])

    async def judge(self, tree: Tree, nodes: list[Node]) -> None:
        """Estimate the states of `nodes`, all together. Raises BudgetSpent after those that the budget covered."""
        if not nodes:
            return
        judged, spent = [*await self.value.aforward(tree.situations(nodes))], None
        low, high = self.environment.scale.bottom, self.environment.scale.top
        if len(judged) != len(nodes):
            raise StlError(f"{type(self.value).__name__} gives {len(judged)} estimates for {len(nodes)} states")
        for node, estimate in zip(nodes, judged, strict=True):
            if isinstance(estimate, BudgetSpent):
                spent = estimate
            else:
                node.estimate = sound(self.value, estimate)
                node.worth = scaled(node.estimate.score, low, high)
                if node.estimate.missing:
                    engine.context().note(engine.UNJUDGED)
        if spent:
            raise spent

    def best(self, tree: Tree, nodes: list[Node], count: int) -> list[Node]:
        """The `count` best nodes of distinct states: missing estimates last, ties in random order."""
        if count == 1 and nodes:
            scores = [score_of(node) for node in nodes]
            top = max(scores)
            if scores.count(top) == 1:
                return [nodes[scores.index(top)]]
        shuffled = list(nodes)
        engine.context().random("ties", tree.task.id, len(tree)).shuffle(shuffled)
        return distinct(sorted(shuffled, key=score_of, reverse=True))[:count]

    def unit(self, estimate: ValueEstimate | None) -> float:
        """An estimate scaled to [0, 1] by the environment's scale; a missing one is worth 0."""
        scale = self.environment.scale
        return scaled(None if estimate is None else estimate.score, scale.bottom, scale.top)

    # Saving: JSON beside adapter folders, never pickle

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {**super().dump_state(json_mode), "environment": self.environment.name}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> SearchProgram:  # type: ignore[override]
        """Take over policy, value and settings of a saved program; adapters are verified and registered.

        Raises StlError for a program of another kind or environment, AdapterError where an adapter is gone, was
        changed, or belongs to another base.
        """
        environment = parsed(SavedModule, state, f"no saved {type(self).__name__}").environment
        if environment != self.environment.name:
            raise StlError(f"the saved program is for {shown(environment)}, this one for {self.environment.name!r}")
        super().load_state(state, allow_unsafe_lm_state=allow_unsafe_lm_state)
        return self

    def save(self, path: Any, save_program: bool = False, modules_to_serialize: Any = None) -> None:
        """Write the program as JSON; adapters are copied into a folder beside it and named by their hash."""
        if save_program:
            raise StlError("save_program=True would pickle code; a program is saved as JSON: save(path) and load(path)")
        write_program(self, path)

    def load(self, path: Any, allow_pickle: bool = False, allow_unsafe_lm_state: bool = False) -> None:
        """Take over a saved program; see `load_state`."""
        load_program(self, path, allow_unsafe_lm_state)


def scaled(score: float | None, low: float, high: float) -> float:
    """A score of [low, high] as one of [0, 1]; a missing one is worth 0, one beyond an end what the end is."""
    if score is None or score <= low:
        return 0.0
    return 1.0 if score >= high else (score - low) / (high - low)


def _plain(value: Any) -> Any:
    value = value() if callable(value) else value
    return list(value) if isinstance(value, tuple) else value

