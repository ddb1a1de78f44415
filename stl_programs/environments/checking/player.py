"""Random legal play, with a look at every state and every step."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cloudpickle

from stl_programs.environments.base import Environment
from stl_programs.environments.checking import asking
from stl_programs.environments.checking.declared import GIVEN, OUTPUTS
from stl_programs.environments.checking.report import Abandoned, Report, shown
from stl_programs.errors import TaskError
from stl_programs.records import Action, State, Task, Transition
from stl_programs.situations import Situation

MOST_STEPS = 200
"""Of one play."""
Propose = Callable[[State], Sequence[str]]


class Step(NamedTuple):
    """What was done in a play."""

    before: State
    action: Action
    after: Transition


class Known(NamedTuple):
    """What was seen in a state, and what followed, by action."""

    text: str
    terminal: bool
    actions: tuple[str, ...] | None
    next: dict[str, str]


class Player:
    """Plays an environment, and reports what is wrong with it. `propose`: actions where they cannot be listed."""

    def __init__(self, env: Environment, report: Report, propose: Propose | None):
        self.env, self.report, self.propose = env, report, propose
        self.refusals = () if env.listable else (TaskError,)
        self.known: dict[tuple[str, str], Known] = {}
        self.ends = self.cut = 0
        """Ends that were met, of the task or of an action that cannot be undone; plays that were cut at max_depth."""

    async def play(self, task: Task, draw: random.Random) -> list[Step]:
        """One play. Raises Abandoned where it cannot go on."""
        state = await self.reset(task)
        situation, steps = Situation(self.env, task, state), list[Step]()
        keys = {state.key}
        while True:
            actions = self.look(situation)
            self.ends += state.terminal
            self.cut += len(steps) == self.env.max_depth and not state.terminal
            if not actions or len(steps) >= min(self.env.max_depth, MOST_STEPS):
                return steps
            step = await self._one_of(task, state, draw.sample(actions, len(actions)))
            if step is None:
                return steps
            steps.append(step)
            situation = situation.then(step.action, step.after)
            state = situation.state
            if state.key in keys and not self.env.cyclic:
                self.report.say("cycle", f"the key {shown(state.key)} comes twice on one path, and `cyclic` is False",
                                "set `cyclic = True`, so that searches leave out what is on the path already; or put "
                                "what differs into the key")
            keys.add(state.key)

    def check_ends(self) -> None:
        """After all plays: some have to end before searches cut them."""
        if self.cut and not self.ends:
            self.report.say("max_depth", f"none of {self.cut} plays came to an end within "
                            f"max_depth={self.env.max_depth} steps",
                            "make the states terminal in which a task ends; raise max_depth where it is too low; or "
                            "pass tasks= and plays= with which a random play can end")

    async def _one_of(self, task: Task, state: State, actions: list[Action]) -> Step | None:
        """The first of them that is possible: proposals may be refused, legal actions may not."""
        for action in actions:
            try:
                return Step(state, action, await self.checked_step(task, state, action))
            except TaskError:
                continue
        self.report.say("all refused", f"every proposal of actions= is refused in {shown(state.text)}, like "
                        f"{actions[0].text!r}", "propose some that are possible")
        return None

    # Asking as the engine does

    async def reset(self, task: Task) -> State:
        name = "reset" if self.env.pure else "areset"
        return self.report.expect(name, await self.report.aask(name, asking.reset(self.env, task)), State,
                                  "return State(text), with what is observed at the start")

    async def step(self, state: State, action: Action) -> Transition:
        name = "step" if self.env.pure else "astep"
        found = await self.report.aask(name, asking.step(self.env, state, action), self.refusals)
        step = self.report.expect(name, found, Transition, "return Transition(state, terminated=state.terminal)")
        self.report.expect(f"{name}'s Transition", step.state, State, "its first part is the next State")
        return step

    # A state

    def look(self, situation: Situation) -> list[Action]:
        """Check a state; what can be done there, without what cannot be undone."""
        env, state = self.env, situation.state
        self._check_inputs(situation)
        answer = self.report.ask("answer", env.answer, situation.task, state)
        if not isinstance(answer, str):
            self.report.say("answer", f"answer gives a {type(answer).__name__} in {shown(state.text)}",
                            "give a str, also for a trajectory that was abandoned")
        actions = self._actions(state)
        self._check_key(situation, tuple(action.text for action in actions) if env.listable else None)
        for action in actions:
            if action.irreversible:
                self.ends += 1
                self._check_leaf(state, action)
        return [] if state.terminal else [action for action in actions if not action.irreversible]

    def _actions(self, state: State) -> list[Action]:
        env, report = self.env, self.report
        if not env.listable:
            texts = [] if state.terminal or self.propose is None else report.ask("actions=", self.propose, state)
            return [action for text in texts if (action := self._meant(state, text)) is not None]
        actions = [report.expect("legal_actions", one, Action, "list Action(text) for every text")
                   for one in report.ask("legal_actions", env.legal_actions, state)]
        texts = [action.text for action in actions]
        if state.terminal and actions:
            report.say("actions at an end", f"the terminal state {shown(state.text)} has legal actions, like "
                       f"{texts[0]!r}", "list none where the task has ended")
        if not state.terminal and not actions:
            report.say("dead end", f"{shown(state.text)} is not terminal and has no legal action",
                       "make it terminal, or list what can be done")
        if len(set(texts)) < len(texts):
            report.say("actions twice", f"legal_actions lists an action twice in {shown(state.text)}",
                       "list one per distinct next state")
        for action in actions:
            meant = self._meant(state, action.text)
            if meant != action:
                report.say("action", f"action(state, {action.text!r}) gives {meant}, and legal_actions lists {action}",
                           "give the same Action, also marked where it cannot be undone")
        return actions

    def _meant(self, state: State, text: str) -> Action | None:
        try:
            meant = self.report.ask("action", self.env.action, state, text, passing=self.refusals)
            return self.report.expect("action", meant, Action, "return Action(text)")
        except TaskError:
            return None

    def _check_key(self, situation: Situation, actions: tuple[str, ...] | None) -> None:
        state, place = situation.state, (situation.task.id, situation.state.key)
        cut = len(state.history) >= self.env.max_depth  # ends here, as the same state on a shorter path does not
        if cut and place not in self.known:
            return
        known = self.known.setdefault(place, Known(state.text, state.terminal, actions, {}))
        cure = "put into the key what makes the difference: states of one key are judged once, and one of them is kept"
        if known.text != state.text:
            self.report.say("key", f"the key {shown(state.key)} stands for two texts, {shown(known.text)} and "
                            f"{shown(state.text)}", cure)
        elif not cut and (known.terminal != state.terminal or (
                actions is not None and known.actions is not None and set(actions) != set(known.actions))):
            self.report.say("key", f"the key {shown(state.key)} stands for two states, that differ in what can be done",
                            cure)

    def _check_leaf(self, state: State, action: Action) -> None:
        leaf = self.report.ask("leaf", self.env.leaf, state, action).state
        if not (leaf.terminal and leaf.untaken and leaf.history == (*state.history, action.text)):
            self.report.say("leaf", f"the leaf of {action.text!r}, which cannot be undone, has terminal={leaf.terminal}"
                            f", untaken={leaf.untaken} and {len(leaf.history)} actions",
                            "make it terminal and untaken, with the action at the end of its history (as "
                            "Environment.leaf does)")

    def _check_inputs(self, situation: Situation) -> None:
        env, report = self.env, self.report
        known = report.ask("fields", env.fields, situation)
        page = report.ask("page", env.page, situation)
        if page is not None and page not in env.judges:
            report.say("page", f"page gives {page!r} for {shown(situation.state.text)}, and `judges` has "
                       f"{', '.join(map(repr, env.judges)) or 'none'}", "add that judge, or give None")
        signatures = [(name, GIVEN.get(name, set()), getattr(env, name)) for name in OUTPUTS]
        signatures += [(f"judges[{of!r}]", set(), signature) for of, judge in env.judges.items()
                       for signature in (judge.signature, judge.lookahead) if signature is not None]
        for name, given, signature in signatures:
            for wanted in sorted(set(signature.input_fields) - given):
                if wanted not in known:
                    report.say(f"input {wanted}", f"{name} ({signature.__name__}) asks for {wanted!r}, which fields "
                               "does not know", f"give it in fields(situation), as {{**super().fields(situation), "
                               f"{wanted!r}: ...}}, or take it out of the signature")
                    continue
                value = report.ask(f"fields(situation)[{wanted!r}]", known[wanted]) if callable(
                    known[wanted]) else known[wanted]
                try:
                    json.dumps(value)
                except (TypeError, ValueError) as error:
                    report.say(f"input {wanted}", f"fields gives for {wanted!r} what is no JSON ({error})",
                               "give a text, a number, or a list of them")

    # A step

    async def checked_step(self, task: Task, state: State, action: Action) -> Transition:
        """T(s, a), asked twice. Raises Abandoned where a legal action is refused."""
        report, before = self.report, fingerprint(state)
        step = await self.step(state, action)
        if fingerprint(state) != before:
            report.say("state changed", f"the step {action.text!r} changed the state {shown(state.text)} that it began "
                       "in", "make what State.data holds immutable, or copy it before it is changed")
            raise Abandoned
        self._check_transition(state, action, step)
        again = await self.step(state, action)
        if seen(again) != seen(step):
            report.say("step", f"{action.text!r} taken twice in {shown(state.text)} shows {shown(step.state.text)} (key"
                       f" {shown(step.state.key)}) and then {shown(again.state.text)} (key {shown(again.state.key)})",
                       "draw chance from the task and the path, and keep nothing in the environment that a step "
                       "changes; for a backend with sessions use SessionEnvironment")
            raise Abandoned
        cut = len(step.state.history) >= self.env.max_depth
        key = self.known[(task.id, state.key)].next.setdefault(action.text, step.state.key) if not cut else None
        if key not in (None, step.state.key):
            report.say("key", f"the key {shown(state.key)} stands for two states: {action.text!r} leads to the key "
                       f"{shown(str(key))} in one, and to {shown(step.state.key)} in the other",
                       "put into the key what makes the difference: states of one key are judged once, and one of "
                       "them is kept")
        if not self.env.pure:
            self._check_journal(step)
        return step

    def _check_transition(self, state: State, action: Action, step: Transition) -> None:
        report, after = self.report, step.state
        if after.history != (*state.history, action.text):
            report.say("history", f"after {action.text!r} the history is {list(after.history)}, and it was "
                       f"{list(state.history)}", "make the next state with state.then(action.text, ...)")
            raise Abandoned
        if (step.terminated or step.truncated) and not after.terminal:
            report.say("terminal", f"the step to {shown(after.text)} says that the task ended, and its state is not "
                       "terminal", "make the state with terminal=True: that is what searches look at")
        if not isinstance(after.text, str) or not isinstance(step.observation, str):
            report.say("text", f"the step {action.text!r} shows a {type(after.text).__name__} and observes a "
                       f"{type(step.observation).__name__}", "give a str for both")
            raise Abandoned

    def _check_journal(self, step: Transition) -> None:
        """A step has to come back from a journal as it was."""
        cure = ("keep State.data JSON (a tuple comes back as a list), or override record and restore together")
        row = self.report.ask("record", self.env.record, step)
        try:
            row = json.loads(json.dumps(row))
        except (TypeError, ValueError) as error:
            self.report.say("journal", f"record gives what is no JSON ({error})", cure)
            raise Abandoned from None
        back = self.report.ask("restore", self.env.restore, step.state.history, row)
        if seen(back) != seen(step):
            self.report.say("journal", f"restore(record(step)) gives {shown(back.state.text)} with the key "
                            f"{shown(back.state.key)}, and not the step to {shown(step.state.text)}", cure)
        elif self.env.listable:
            try:
                same = self.env.legal_actions(back.state) == self.env.legal_actions(step.state)
            except Exception as error:
                self.report.say("journal", f"legal_actions of a restored state raises {type(error).__name__}: {error}",
                                cure)
                return
            if not same:
                self.report.say("journal", f"restored, {shown(back.state.text)} has other legal actions", cure)

    # Once more

    async def play_again(self, task: Task, steps: list[Step]) -> None:
        """The play from its start, which must show the same; and one step of it from its middle."""
        await self.report.aask("aclose", self.env.aclose())  # so that sessions are begun anew
        state = await self.reset(task)
        for i, (_, action, after) in enumerate(steps):
            try:
                step = await self.step(state, action)
            except TaskError:
                self._differs(i, action, f"is refused, and showed {shown(after.state.text)} before")
                return
            if seen(step) != seen(after):
                self._differs(i, action, f"shows {shown(step.state.text)}, and showed {shown(after.state.text)} before")
                return
            state = step.state
        if steps:
            before, action, after = steps[len(steps) // 2]
            step = await self.step(before, action)
            if seen(step) != seen(after):
                self.report.say("branch", f"after the play had gone on, {action.text!r} in {shown(before.text)} shows "
                                f"{shown(step.state.text)}, and showed {shown(after.state.text)} before",
                                "step from the state that is given, and not from where the environment stands")

    def _differs(self, steps: int, action: Action, what: str) -> None:
        self.report.say("replay", f"played again from its start, {action.text!r} after {steps} steps {what}",
                        "let reset and step depend on the task and the path alone: seed every chance with them")


def fingerprint(state: State) -> bytes:
    """What a state is, to see whether it changes; of a payload that cannot be pickled, how it prints."""
    whole = (state.text, state.key, state.history, state.terminal)
    try:
        return cloudpickle.dumps((whole, state.data))
    except Exception:  # what a payload may raise is its own; that it cannot travel is found elsewhere
        return repr((whole, state.data)).encode()


def seen(step: Transition) -> tuple[Any, ...]:
    """What a search sees of a step."""
    state = step.state
    return state.text, state.key, state.history, state.terminal, step.terminated, step.truncated, step.observation

