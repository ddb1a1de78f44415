"""Worlds behind a backend whose sessions change with every step, made to branch by the best means that they have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, Literal, NamedTuple, TypeVar

from stl_programs.environments.base import Environment
from stl_programs.environments.parking import Parking, Place, Session, digest, same, short
from stl_programs.errors import StlError, TaskError
from stl_programs.records import Action, State, Task, Transition

T = TypeVar("T")
Branching = Literal["snapshot", "copy", "replay"]
CURE = "give the world snapshot and recover, or take out of its texts what no session repeats (times, ids, prices)"


class Observation(NamedTuple):
    """What a backend shows after a reset or a step; a str is enough where the text is all there is.

    `key`, `data`: of the state (see `State`); data is JSON. `actions`: those that are possible here, where the world
    lists them.
    """

    text: str
    key: str | None = None
    terminated: bool = False
    truncated: bool = False
    actions: tuple[str, ...] | None = None
    data: Any = None


class Trail(NamedTuple):
    """`State.data` of a session world: how to come back to the state, and what has to be seen on the way."""

    task: Task
    seen: tuple[str, ...]
    """The texts of the states before this one, oldest first; digests where they were read from a journal."""
    actions: tuple[str, ...] | None
    data: Any


class SessionEnvironment(Environment):
    """Base of worlds whose backend has sessions, and whose step changes one. A search sees states that never change.

    Subclasses write `begin` and `act`, `end` where sessions have to be given back, and what the backend can do of
    `snapshot` with `recover`, or `copy` with `look`. To take a second action in a state, the first of these that there
    is brings a session back there:

    1. a snapshot, taken before the first action;
    2. a copy, which must show what the original shows; and a step in it must not change what the original shows;
    3. the actions once more, from the nearest session before or a new one; on the way must be seen what was seen then.

    A difference is an error that names both sights. Sessions wait where they stand and are gone on from, so that a
    search that goes straight on pays one step for a step. No session ever takes two steps at once. A trajectory ends
    after `max_depth` steps at the latest.

    Example:
        >>> class Shop(SessionEnvironment):
        ...     name, max_depth, scale, lists_actions = "shop", 10, NumberScale(1.0, 10.0), True
        ...     async def begin(self, task):
        ...         page = await self.client.post("/new", goal=task.text)
        ...         return page["session"], Observation(page["text"], actions=tuple(page["actions"]))
        ...     async def act(self, session, action):
        ...         page = await self.client.post("/step", session=session, action=action.text)
        ...         return Observation(page["text"], terminated=page["done"], actions=tuple(page["actions"]))
        ...     async def end(self, session):
        ...         await self.client.post("/close", session=session)
    """

    pure = False
    lists_actions: bool = False
    """True where every observation names the actions that are possible: `LegalMoves` can then be used, and what is not
    among them is refused before it is sent."""
    parked: int = 16
    """Sessions that may wait in states at once; beyond it the one that was left alone longest is ended."""
    snapshots: int = 256
    """Snapshots that are kept at once."""

    # What a subclass writes

    @abstractmethod
    async def begin(self, task: Task) -> tuple[Session, Observation | str]:
        """A new session at the start of `task`, and what is seen there."""

    @abstractmethod
    async def act(self, session: Session, action: Action) -> Observation | str:
        """Take `action` in the session. Raises TaskError, with the session unchanged, for one that is not possible."""

    async def end(self, session: Session) -> None:
        """Give the session back; also one in which something went wrong."""

    async def snapshot(self, session: Session) -> Any:
        """What `recover` makes an equal session of, any number of times."""
        raise NotImplementedError(f"{type(self).__name__} has no snapshot(session)")

    async def recover(self, task: Task, snapshot: Any) -> Session:
        """A new session that stands where the snapshot was taken."""
        raise NotImplementedError(f"{type(self).__name__} has no recover(task, snapshot)")

    async def copy(self, session: Session) -> Session:
        """A second session that stands where this one does."""
        raise NotImplementedError(f"{type(self).__name__} has no copy(session)")

    async def look(self, session: Session) -> Observation | str:
        """What is seen in the session now, without a step."""
        raise NotImplementedError(f"{type(self).__name__} has no look(session)")

    @property
    def branching(self) -> Branching:
        """The means that the world has. Raises TypeError for half of one."""
        kind, base = type(self), SessionEnvironment
        written = {name for name in ("snapshot", "recover", "copy", "look")
                   if getattr(kind, name) is not getattr(base, name)}
        for one, other in (("snapshot", "recover"), ("recover", "snapshot"), ("copy", "look")):
            if one in written and other not in written:
                raise TypeError(f"{kind.__name__} has {one} and no {other}: write both; with neither, paths are "
                                "replayed")
        return "snapshot" if "snapshot" in written else "copy" if "copy" in written else "replay"

    # What the engine asks

    async def areset(self, task: Task) -> State:
        session, seen = await self.begin(task)
        try:
            state = self._state(task, as_observation(seen), (), ())
        except BaseException:
            await self._parking.drop(session)
            raise
        await self._leave(session, state)
        return state

    async def astep(self, state: State, action: Action) -> Transition:
        trail = trail_of(state, self)
        if trail.actions is not None and action.text not in trail.actions:
            raise TaskError(f"{action.text!r} is not possible in {short(state.text)}; possible are "
                            f"{', '.join(trail.actions[:20]) or 'none'}")
        session = await self._standing_in(state)
        try:
            seen = as_observation(await self.act(session, action))
            if self.branching == "copy" and not action.irreversible:
                await self._check_original(state)
            after = self._state(trail.task, seen, (*state.history, action.text), (*trail.seen, state.text))
        except TaskError:
            await self._parking.put((trail.task.id, state.history), session)
            raise
        except BaseException:
            await self._parking.drop(session)
            raise
        await self._leave(session, after)
        return Transition(after, seen.terminated, after.terminal and not seen.terminated, seen.text)

    async def aclose(self) -> None:
        await self._parking.clear()

    def legal_actions(self, state: State) -> list[Action]:
        actions = trail_of(state, self).actions
        if state.terminal:
            return []
        if actions is None:
            return super().legal_actions(state)
        return [self.action(state, text) for text in actions]

    @property
    def listable(self) -> bool:
        return self.lists_actions or type(self).legal_actions is not SessionEnvironment.legal_actions

    def reset(self, task: Task) -> State:
        raise StlError(f"{self.name} has sessions: await areset(task) in place of reset(task)")

    def step(self, state: State, action: Action) -> Transition:
        raise StlError(f"{self.name} has sessions: await astep(state, action) in place of step(state, action)")

    def record(self, transition: Transition) -> dict[str, Any]:
        trail = trail_of(transition.state, self)
        task = [trail.task.id, trail.task.text, dict(trail.task.fields)]
        return super().record(transition) | {"data": {
            "task": task, "seen": [digest(text) for text in trail.seen],
            "actions": None if trail.actions is None else list(trail.actions), "data": trail.data}}

    def restore(self, history: tuple[str, ...], row: dict[str, Any]) -> Transition:
        saved = row["data"]
        actions = None if saved["actions"] is None else tuple(saved["actions"])
        trail = Trail(Task(*saved["task"]), tuple(saved["seen"]), actions, saved["data"])
        return super().restore(history, {**row, "data": trail})

    # Coming back to a state

    async def _standing_in(self, state: State) -> Session:
        """A session that stands in `state` and that nobody else has."""
        place = place_of(state, self)
        if self.branching == "replay":
            return await self._original(state)
        async with self._parking.lock(place):
            if self.branching == "copy":
                return await self._copied(state)
            if place not in self._parking and self._parking.has_snapshot(place):
                return await self.recover(trail_of(state, self).task, self._parking.snapshot(place))
            session = await self._original(state)
            if not self._parking.has_snapshot(place):
                self._parking.keep(place, await self._or_drop(session, self.snapshot(session)))
            return session

    async def _copied(self, state: State) -> Session:
        """A copy of the session that stands in `state`; the original waits there."""
        original = await self._original(state)
        copy = await self._or_drop(original, self.copy(original))
        await self._parking.put(place_of(state, self), original)
        await self._or_drop(copy, self._look_again(copy, state, "a copy of its session shows"))
        return copy

    async def _check_original(self, state: State) -> None:
        """Raises StlError where a step in a copy has changed what the original shows."""
        place = place_of(state, self)
        async with self._parking.lock(place):
            if place in self._parking:  # else it was ended in the meantime, to make room
                original = self._parking.take(place)
                await self._or_drop(original, self._look_again(original, state, "after a step in a copy it shows"))
                await self._parking.put(place, original)

    async def _look_again(self, session: Session, state: State, what: str) -> None:
        now = as_observation(await self.look(session)).text
        if not same(state.text, now):
            raise StlError(f"{self.name}: the state showed {short(state.text)}, and {what} {short(now)}; mend copy and "
                           "look, or leave them out: paths are then replayed")

    async def _original(self, state: State) -> Session:
        """The session that waits in `state`; else one that is brought there, from the nearest one on the way."""
        trail, history = trail_of(state, self), state.history
        for start in range(len(history), -1, -1):
            place = (trail.task.id, history[:start])
            if place in self._parking:
                session = self._parking.take(place)
                break
            if self._parking.has_snapshot(place):
                session = await self.recover(trail.task, self._parking.snapshot(place))
                break
        else:
            start = 0
            session, seen = await self.begin(trail.task)
            await self._or_drop(session, self._compare(state, 0, seen))
        await self._or_drop(session, self._replay(session, state, start))
        return session

    async def _replay(self, session: Session, state: State, start: int) -> None:
        """The actions of the state's history from the `start`-th on, once more."""
        for i, action in enumerate(state.history[start:], start):
            try:
                seen = await self.act(session, Action(action))
            except TaskError as refused:
                raise StlError(f"{self.name} cannot be replayed: {action!r}, after {i} steps, was taken before and is "
                               f"now refused ({refused}); {CURE}") from None
            await self._compare(state, i + 1, seen)

    async def _compare(self, state: State, steps: int, seen: Observation | str) -> None:
        """Raises StlError where `seen` is not what was seen after so many steps to `state`."""
        trail = trail_of(state, self)
        then, now = (*trail.seen, state.text)[steps], as_observation(seen).text
        if not same(then, now):
            what = f"{state.history[steps - 1]!r}, step {steps} of" if steps else "the start of"
            raise StlError(f"{self.name} cannot be replayed: {what} {trail.task.id!r}, showed {short(then)} and now "
                           f"shows {short(now)}; {CURE}")

    async def _or_drop(self, session: Session, work: Awaitable[T]) -> T:
        """What `work` gives; where it fails, the session is ended."""
        try:
            return await work
        except BaseException:
            await self._parking.drop(session)
            raise

    # States, and the sessions that wait in them

    def _state(self, task: Task, seen: Observation, history: tuple[str, ...], before: tuple[str, ...]) -> State:
        terminal = seen.terminated or seen.truncated or len(history) >= self.max_depth
        actions = None if seen.actions is None else tuple(seen.actions)
        if actions is None and self.lists_actions and not terminal:
            raise StlError(f"{self.name} says that it lists actions, and named none in {short(seen.text)}; give "
                           "Observation(..., actions=...) everywhere, or lists_actions = False")
        key = seen.text if seen.key is None else seen.key
        if terminal and not (seen.terminated or seen.truncated):  # cut: worth another thing than before
            key = f"{key}\n(after {len(history)} steps)"
        return State(seen.text, key, history, terminal, Trail(task, before, actions, seen.data))

    async def _leave(self, session: Session, state: State) -> None:
        """The session waits where it stands; at an end there is nothing to wait for."""
        if state.terminal:
            await self.end(session)
        else:
            await self._parking.put(place_of(state, self), session)

    @property
    def _parking(self) -> Parking:
        """Of this process: made when it is first needed, and sent to no other."""
        found: Parking | None = self.__dict__.get("_own_parking")
        if found is None:
            found = self.__dict__["_own_parking"] = Parking(self.end, self.parked, self.snapshots)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own_parking"}


def as_observation(seen: Observation | str) -> Observation:
    """A text as the observation that it is. Raises TypeError for what is neither."""
    if isinstance(seen, str):
        return Observation(seen)
    if not isinstance(seen, Observation):
        raise TypeError(f"a session showed a {type(seen).__name__}; begin, act and look give an Observation or a str")
    return seen


def trail_of(state: State, environment: Environment) -> Trail:
    """How to come back to `state`. Raises StlError for a state of another world."""
    if not isinstance(state.data, Trail):
        raise StlError(f"{short(state.text)} is no state of {environment.name}: begin with areset(task)")
    return state.data


def place_of(state: State, environment: Environment) -> Place:
    """Where a session stands that stands in `state`."""
    return trail_of(state, environment).task.id, state.history
