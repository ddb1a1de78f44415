"""Worlds behind an AgentGym server: sessions over HTTP that are replayed to branch, and closed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import dspy
from pydantic import BaseModel, ConfigDict

from signatures import EstimateValue, Lookahead, ProposeActions, Scale
from signatures.webshop import SCALE
from stl_programs.construct import Count, Positive, checked
from stl_programs.environments.remote import Web
from stl_programs.environments.sessions import Observation, SessionEnvironment
from stl_programs.errors import StlError, TaskError
from stl_programs.outside import parse_json, shown
from stl_programs.records import Action, State, Task


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True)


class _Created(_Reply):
    root: int


class _Reset(_Reply):
    root: list[str | None]


class _Step(_Reply):
    state: str
    reward: float
    done: bool


class _Available(_Reply):
    has_search_bar: bool
    clickables: list[str]


class _Closed(_Reply):
    closed: bool


class AgentGymEnvironment(SessionEnvironment):
    """A WebShop behind AgentGym's HTTP protocol: `/create`, `/reset`, `/step`, `/available_actions`, `/close`.

    The server keeps one session per trajectory and cannot copy it, so a second action in a state replays the path in a
    new session; what is seen on the way is compared, and a difference is an error. Every session that was created is
    closed.

    Args:
        url: of the server.
        goals: how many there are; task "3" is its session 3.
        irreversible: actions that a search judges and does not take.
        signatures: of "policy", "value" and "lookahead", where they are not the general ones. scale: of the value.
        max_depth: actions of a trajectory at most. seconds: that one request may take.

    Example:
        >>> env = AgentGymEnvironment("http://127.0.0.1:36001", goals=200)
    """

    name = "agentgym-webshop"
    lists_actions = True
    cyclic = True
    settings = ("url", "irreversible")

    @checked
    def __init__(self, url: str, *, goals: Count = 500, irreversible: Sequence[str] = ("click[buy now]",),
                 signatures: Mapping[str, type[dspy.Signature]] | None = None, scale: Scale | None = None,
                 max_depth: Count = 10, seconds: Positive = 60.0):
        self.web = Web(url, "an AgentGym server", seconds)
        self.url, self.goals, self.irreversible, self.max_depth = self.web.url, goals, tuple(irreversible), max_depth
        own = dict(signatures or {})
        if unknown := set(own) - {"policy", "value", "lookahead"}:
            raise TaskError(f"signatures: {min(unknown)!r} is unknown; there are policy, value and lookahead")
        self.policy_signature = own.get("policy", ProposeActions)
        self.value_signature = own.get("value", EstimateValue)
        self.lookahead_signature = own.get("lookahead", Lookahead)
        self.scale = scale or SCALE

    def task(self, text: str) -> Task:
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < self.goals):
            raise TaskError(f"{shown(text)} is no goal: they are numbered 0 to {self.goals - 1}")
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        """Only "test": every goal, in order."""
        if split != "test":
            raise TaskError(f"no split {split!r}; a server has only test")
        return [self.task(str(number)) for number in range(self.goals)]

    def action(self, state: State, text: str) -> Action:
        text = text.strip()
        return Action(text, text.lower() in self.irreversible)

    async def begin(self, task: Task) -> tuple[int, Observation]:
        session = (await self.web.post(_Created, "/create", {})).root
        try:
            seen = (await self.web.post(_Reset, "/reset", {"env_idx": session, "session_id": int(task.id)})).root
            if not seen or seen[0] is None:
                raise StlError(f"{self.web.url} resets to nothing; look at the server")
            return session, Observation(seen[0], actions=await self._actions(session, seen[0]))
        except BaseException:
            await self.end(session)
            raise

    async def act(self, session: int, action: Action) -> Observation:
        step = await self.web.post(_Step, "/step", {"env_idx": session, "action": action.text})
        actions = () if step.done else await self._actions(session, step.state)
        return Observation(step.state, terminated=step.done, actions=actions, data=step.reward)

    async def _actions(self, session: int, text: str) -> tuple[str, ...]:
        found = await self.web.read(_Available, "/available_actions", env_idx=session)
        goal = text.partition("Instruction: [SEP] ")[2].partition(" [SEP]")[0].partition(", and price lower than")[0]
        searches = (f"search[{goal}]",) if found.has_search_bar and goal else ()
        return searches + tuple(f"click[{text}]" for text in found.clickables if text != "search")

    async def end(self, session: int) -> None:
        await self.web.post(_Closed, "/close", {"env_idx": session})

    def answer(self, task: Task, state: State) -> str:
        """The actions of a finished trajectory as JSON, "" of one that did not end."""
        return json.dumps(list(state.history)) if state.terminal else ""

    async def ascore(self, task: Task, answer: str) -> float:
        """The reward that the server gives at the end of the same actions, in a session of its own."""
        self.check_sealed(task)
        if not answer:
            return 0.0
        session, _ = await self.begin(task)
        try:
            reward = 0.0
            for text in parse_json(answer, "the answer is no list of actions", TaskError):
                seen = await self.act(session, Action(text))
                reward = float(seen.data)
        finally:
            await self.end(session)
        if not 0.0 <= reward <= 1.0:
            raise StlError(f"{self.web.url} gives the reward {reward}; it should be from 0 to 1")
        return reward

    def _score(self, task: Task, answer: str) -> float:
        raise StlError(f"{self.name} is asked over the network: await ascore(task, answer) in place of score")

    async def aclose(self) -> None:
        await super().aclose()
        await self.web.aclose()
