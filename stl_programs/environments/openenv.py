"""Worlds behind an OpenEnv server: a WebSocket is a session, replayed to branch, and closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions, Scale
from stl_programs.construct import Count, Positive, checked
from stl_programs.environments.remote import Web
from stl_programs.environments.remote.web import LONGEST
from stl_programs.environments.sessions import Observation, SessionEnvironment
from stl_programs.errors import StlError, TaskError, TransientError
from stl_programs.outside import parse_json, parsed, shown
from stl_programs.records import Action, State, Task


class _Seen(BaseModel):
    model_config = ConfigDict(strict=True)

    observation: dict[str, Any]
    reward: float | int | bool | None = None
    done: bool = False


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    type: str
    data: dict[str, Any] = {}


class OpenEnvEnvironment(SessionEnvironment):
    """A text world behind OpenEnv's WebSocket protocol.

    Its servers keep one session per connection and cannot copy it, so a second action in a state replays the path in a
    new connection; what is seen on the way is compared, and a difference is an error. A server has to allow several
    sessions at once (`SUPPORTS_CONCURRENT_SESSIONS`).

    Args:
        url: of the server, `http://HOST:PORT`.
        seeds: of the episodes: task "3" resets with seed 3.
        goal: what is to be done, in words, where observations do not say it.
        action_field: of an action, the field that holds its text. text_field: of an observation, the field to read.
        actions_field: of an observation, the field that lists what is possible, where there is one.
        irreversible: actions that a search judges and does not take.
        signatures: of "policy", "value" and "lookahead", where they are not the general ones. scale: of the value.
        max_depth: actions of a trajectory at most. seconds: that one message may take.

    Example:
        >>> env = OpenEnvEnvironment("http://127.0.0.1:8000", seeds=100, text_field="echoed_message")
    """

    name = "openenv"
    cyclic = True
    settings = ("url", "goal", "action_field", "text_field", "actions_field", "irreversible")

    @checked
    def __init__(self, url: str, *, seeds: Count = 100, goal: str = "", action_field: str = "message",
                 text_field: str = "text", actions_field: str = "", irreversible: Sequence[str] = (),
                 signatures: Mapping[str, type[dspy.Signature]] | None = None, scale: Scale | None = None,
                 max_depth: Count = 10, seconds: Positive = 60.0):
        self.web = Web(url, "an OpenEnv server", seconds)
        self.url, self.seeds, self.goal, self.seconds = self.web.url, seeds, goal, seconds
        self.action_field, self.text_field, self.actions_field = action_field, text_field, actions_field
        self.irreversible, self.max_depth, self.lists_actions = tuple(irreversible), max_depth, bool(actions_field)
        own = dict(signatures or {})
        if unknown := set(own) - {"policy", "value", "lookahead"}:
            raise TaskError(f"signatures: {min(unknown)!r} is unknown; there are policy, value and lookahead")
        self.policy_signature = own.get("policy", ProposeActions)
        self.value_signature = own.get("value", EstimateValue)
        self.lookahead_signature = own.get("lookahead", Lookahead)
        self.scale = scale or NumberScale(1.0, 10.0)

    def task(self, text: str) -> Task:
        number = text.rpartition(" ")[2]
        if not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) < self.seeds):
            raise TaskError(f"{shown(text)} is no episode: they are numbered 0 to {self.seeds - 1}")
        return Task(number, f"{self.goal} {number}".strip())

    def tasks(self, split: str) -> list[Task]:
        """Only "test": every seed, in order."""
        if split != "test":
            raise TaskError(f"no split {split!r}; a server has only test")
        return [self.task(str(number)) for number in range(self.seeds)]

    def action(self, state: State, text: str) -> Action:
        return Action(text.strip(), text.strip() in self.irreversible)

    async def begin(self, task: Task) -> tuple[Any, Observation]:
        import aiohttp

        session = aiohttp.ClientSession(trust_env=False)
        try:
            async with asyncio.timeout(self.seconds):
                socket = await session.ws_connect(f"{self.url.replace('http', 'ws', 1)}/ws", max_msg_size=LONGEST)
            seen = await self._say((session, socket), "reset", {"seed": int(task.id)})
        except BaseException as failure:
            await session.close()
            if isinstance(failure, (aiohttp.ClientError, TimeoutError)):
                raise TransientError(f"an OpenEnv server at {self.url} cannot be reached ({type(failure).__name__}); "
                                     "is it running?") from None
            raise
        return (session, socket), seen

    async def act(self, session: Any, action: Action) -> Observation:
        return await self._say(session, "step", {self.action_field: action.text})

    async def _say(self, session: Any, kind: str, content: dict[str, Any]) -> Observation:
        """The observation that answers a message. Raises TransientError for a connection that broke or is too slow."""
        import aiohttp

        where = f"an OpenEnv server at {self.url}"
        try:
            async with asyncio.timeout(self.seconds):
                await session[1].send_str(json.dumps({"type": kind, "data": content}))
                reply = await session[1].receive()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as failure:
            raise TransientError(f"{where} did not answer {kind!r} ({type(failure).__name__})") from None
        if reply.type is not aiohttp.WSMsgType.TEXT:
            raise TransientError(f"{where} ended the session at {kind!r}")
        message = parsed(_Message, parse_json(reply.data, f"{where} does not answer in its protocol"),
                         f"{where} does not answer in its protocol")
        if message.type == "error":
            raise StlError(f"{where} refuses {kind!r} {shown(content)}: {shown(message.data.get('message'))}; look at "
                           "the names of its fields")
        return self._observation(parsed(_Seen, message.data, f"{where} shows no observation"))

    def _observation(self, seen: _Seen) -> Observation:
        text, actions = seen.observation.get(self.text_field), seen.observation.get(self.actions_field)
        if not isinstance(text, str):
            raise StlError(f"{self.url} shows no text in {self.text_field!r}; its observations have "
                           f"{', '.join(map(str, list(seen.observation)[:20]))}: name one as text_field")
        if self.actions_field and not (isinstance(actions, list) and all(isinstance(one, str) for one in actions)):
            raise StlError(f"{self.url} lists no actions in {self.actions_field!r}; name another as actions_field")
        listed = tuple(actions) if self.actions_field and isinstance(actions, list) else None
        return Observation(text, terminated=seen.done, actions=listed, data=float(seen.reward or 0.0))

    async def end(self, session: Any) -> None:
        import contextlib

        opened, socket = session
        with contextlib.suppress(Exception):
            await socket.send_str(json.dumps({"type": "close"}))
        await socket.close()
        await opened.close()

    def answer(self, task: Task, state: State) -> str:
        """The actions of a trajectory as JSON."""
        return json.dumps(list(state.history))

    async def ascore(self, task: Task, answer: str) -> float:
        """The sum of the rewards that the server gives for the same actions, in a session of its own.

        Raises StlError where it is not from 0 to 1: override `ascore` in a subclass to scale it.
        """
        self.check_sealed(task)
        session, _ = await self.begin(task)
        try:
            total = 0.0
            for text in parse_json(answer or "[]", "the answer is no list of actions", TaskError):
                total += float((await self.act(session, Action(text))).data)
        finally:
            await self.end(session)
        if not 0.0 <= total <= 1.0:
            raise StlError(f"the rewards of {self.url} sum to {total:g}; a score is from 0 to 1: override ascore in a "
                           "subclass, and scale it there")
        return total

    def _score(self, task: Task, answer: str) -> float:
        raise StlError(f"{self.name} is asked over the network: await ascore(task, answer) in place of score")

    async def aclose(self) -> None:
        await super().aclose()
        await self.web.aclose()
