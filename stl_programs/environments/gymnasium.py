"""Any Gymnasium environment as a world."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions, Scale
from signatures.listed import ProposeListed
from stl_programs.construct import Count, checked
from stl_programs.environments.gymnasium_plays import Twin, branches, replays
from stl_programs.environments.parking import short
from stl_programs.environments.sessions import Branching, Observation, SessionEnvironment
from stl_programs.environments.spaces import parse, render, unreadable, unwritable
from stl_programs.errors import StlError, TaskError
from stl_programs.extras import need
from stl_programs.records import Action, State, Task

ENDED = "(the episode has ended)"
STARTS = {"train": 0, "validation": 1000, "test": 2000}
"""The first of the hundred seeds of a split."""
_SEED = re.compile(r"(?:seed\s+)?(\d{1,18})")


class Play:
    """A session: an environment that has been reset, and what it showed last."""

    def __init__(self, env: Any, shown: Observation):
        self.env, self.shown = env, shown


class GymnasiumEnvironment(SessionEnvironment):
    """Any Gymnasium environment as a world. A task is a seed: "seed 3" resets with 3, and so always begins the same.

    The seed also fixes what happens by chance: a search sees the luck that its actions will have. Rewards are sealed
    as everywhere: no state holds them, and an answer (the actions as a JSON list) is scored by playing it in a new
    environment.

    When it is built, it is played a few times. An environment that shows something else when the same seed and actions
    are played again is refused. Otherwise `branching` says how it comes back to a state: by `snapshot` and `recover`
    where they are given; by deepcopy where copies take every action as the original does; by replay where they do not
    (copies of an EzPickle environment are reset), and `not_copied` says why.

    Args:
        make: an id, like "CliffWalking-v1", or a function of no arguments that makes the environment.
        goal: what is to be done, for the models: the start of every task's text.
        observe: (observation, info) -> text. By default numbers and texts as they are.
        act: text of an action -> the environment's action. By default names, numbers or the text itself.
        actions: names of a Discrete space's actions, in order; or (observation, info) -> what is possible there. By
            default the numbers of a Discrete space. `info["action_mask"]` is heeded, where there is one.
        key: "observation": states that look alike are worth the same; "path": every path leads to a state of its own,
            for environments that hide something (cards, time).
        reward_range: returns that score 0 and 1; those beyond count as the nearer one.
        score: (rewards of the path) -> score in [0, 1], in place of the range.
        snapshot, recover: (environment) -> snapshot, and (environment, snapshot) -> None, which brings any environment
            of `make` there.
        max_depth: by default the environment's own limit on steps.
        scale, policy_signature, value_signature, lookahead_signature: by default the general ones, on 1 to 10; the
            policy is told the possible actions where they can be listed.

    Raises StlError, in one line, for an environment that cannot be a world.

    Example:
        >>> env = GymnasiumEnvironment("CliffWalking-v1", goal="Walk from cell 36 to cell 47; 37 to 46 are the cliff.",
        ...                            actions=["up", "right", "down", "left"], max_depth=20, reward_range=(-30, -13))
        >>> BeamSearch(env, LegalMoves(), Value(env.value_signature, "openai/gpt-4o"))(task="seed 0")
    """

    settings = ("goal", "key", "names", "reward_range")

    @checked
    def __init__(self, make: str | Callable[[], Any], *, name: str | None = None, goal: str = "",
                 observe: Callable[[Any, dict[str, Any]], str] | None = None,
                 act: Callable[[str], Any] | None = None,
                 actions: Sequence[str] | Callable[[Any, dict[str, Any]], Sequence[str]] | None = None,
                 key: Literal["observation", "path"] = "observation",
                 reward_range: tuple[float, float] = (0.0, 1.0),
                 score: Callable[[list[float]], float] | None = None,
                 snapshot: Callable[[Any], Any] | None = None, recover: Callable[[Any, Any], None] | None = None,
                 max_depth: Count | None = None, scale: Scale | None = None,
                 policy_signature: type[dspy.Signature] | None = None,
                 value_signature: type[dspy.Signature] = EstimateValue,
                 lookahead_signature: type[dspy.Signature] = Lookahead):
        need("GymnasiumEnvironment", "gymnasium")
        if not reward_range[0] < reward_range[1]:
            raise ValueError(f"reward_range={reward_range}: the first must be below the second")
        if (snapshot is None) != (recover is None):
            raise ValueError("snapshot and recover belong together: pass both, or neither")
        self.make, self.goal, self.key, self.cyclic = make, goal.strip(), key, key == "observation"
        self.observe, self.translate, self.reward_range, self.scoring = observe, act, reward_range, score
        self.save_to, self.load_from = snapshot, recover
        self._read_spaces(name, actions, max_depth)
        self.scale = scale or NumberScale(1.0, 10.0)
        self.policy_signature = policy_signature or (ProposeListed if self.listable else ProposeActions)
        self.value_signature, self.lookahead_signature = value_signature, lookahead_signature
        self._branching, self.not_copied = self._means()

    def _read_spaces(self, name: str | None, actions: Any, max_depth: int | None) -> None:
        env = self._made()
        spec = getattr(env, "spec", None)
        self.name = name or (spec.id if spec else type(getattr(env, "unwrapped", env)).__name__)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        limit = max_depth or (spec.max_episode_steps if spec else None)
        env.close()
        if limit is None:
            raise StlError(f"{self.name} has no limit on steps; pass max_depth=, after how many a trajectory ends")
        self.max_depth = limit
        if self.observe is None and (why := unreadable(self.observation_space)):
            raise StlError(f"{self.name} cannot be read by a language model: {why}; pass observe=, a function from an "
                           "observation and its info to a text")
        self.possible = actions if callable(actions) else None
        self.names = self._names(None if callable(actions) else actions)
        self.lists_actions = bool(self.names) or self.possible is not None
        if self.translate is None and not self.names and (why := unwritable(self.action_space)):
            raise StlError(f"{self.name} cannot be played by a language model: {why}; pass act=, a function from a "
                           "text to an action")

    def _names(self, given: Sequence[str] | None) -> dict[str, int]:
        """Names of a Discrete space's actions, in order, by their numbers; none of other spaces."""
        from gymnasium.spaces import Discrete

        space = self.action_space
        if not isinstance(space, Discrete):
            if given is not None:
                raise StlError(f"{self.name}: actions= names those of a Discrete space, and this one is {space}; pass "
                               "a function (observation, info) -> possible actions")
            return {}
        numbers = range(int(space.start), int(space.start) + int(space.n))
        if self.possible is not None or (given is None and self.translate is not None):
            return {}
        names = list(map(str, numbers)) if given is None else list(given)
        if len(names) != len(numbers) or len(set(names)) != len(names):
            raise StlError(f"{self.name} has {len(numbers)} actions, and actions= has {len(set(names))} different "
                           "names; give one for each, in order")
        return dict(zip(names, numbers, strict=True))

    # Tasks

    def task(self, text: str) -> Task:
        """The seed that "seed 3", "3" or a task's own text names. Raises TaskError for another text."""
        match = _SEED.fullmatch(str(text).strip().removeprefix(self.goal).strip())
        if match is None:
            raise TaskError(f"{text!r} is no task of {self.name}; a task is a seed, like 'seed 3'")
        named = f"seed {int(match[1])}"
        return Task(named, f"{self.goal}\n{named}" if self.goal else named)

    def tasks(self, split: str) -> list[Task]:
        """A hundred seeds: "train" from 0, "validation" from 1000, "test" from 2000."""
        if split not in STARTS:
            raise TaskError(f"no split {split!r}; there are {', '.join(STARTS)}")
        return [self.task(str(seed)) for seed in range(STARTS[split], STARTS[split] + 100)]

    def action(self, state: State, text: str) -> Action:
        """An action by its name, or by its number."""
        text = text.strip()
        if self.names and text not in self.names:
            text = next((name for name, number in self.names.items() if text == str(number)), text)
        return Action(text)

    # A session is an environment

    @property
    def branching(self) -> Branching:
        return self._branching

    async def begin(self, task: Task) -> tuple[Play, Observation]:
        play = self.started(_seed_of(task), task.fields.get("options"))
        return play, play.shown

    async def act(self, session: Play, action: Action) -> Observation:
        self.take(session, self.meant(action.text))
        return session.shown

    async def end(self, session: Play) -> None:
        session.env.close()

    async def snapshot(self, session: Play) -> Twin:
        assert self.save_to is not None
        return self.save_to(session.env), session.shown

    async def recover(self, task: Task, snapshot: Twin) -> Play:
        return self.recovered(_seed_of(task), snapshot)

    async def copy(self, session: Play) -> Play:
        return copy.deepcopy(session)

    async def look(self, session: Play) -> Observation:
        """What was shown last: Gymnasium has no other way to look. What copies do was compared when this was built."""
        return session.shown

    def started(self, seed: int, options: Mapping[str, Any] | None = None) -> Play:
        """A new environment, reset."""
        env = self._made()
        try:
            observation, info = env.reset(seed=seed, options=options)
            return Play(env, self._shown(observation, info))
        except BaseException:
            env.close()
            raise

    def recovered(self, seed: int, snapshot: Twin) -> Play:
        """A new environment that stands where the snapshot was taken."""
        assert self.load_from is not None
        play = self.started(seed)
        self.load_from(play.env, snapshot[0])
        play.shown = snapshot[1]
        return play

    def take(self, play: Play, action: Any) -> float:
        """One step; its reward is the caller's to keep from the search."""
        observation, reward, terminated, truncated, info = play.env.step(action)
        play.shown = self._shown(observation, info, bool(terminated), bool(truncated))
        return float(reward)

    def meant(self, text: str) -> Any:
        """The environment's action. Raises TaskError for a text that means none."""
        if self.names:
            if text not in self.names:
                raise TaskError(f"{text!r} is no action of {self.name}; there are {', '.join(self.names)}")
            return self.names[text]
        action = self.translate(text) if self.translate else parse(self.action_space, text)
        if not self.action_space.contains(action):
            raise TaskError(f"{text!r} is no action of {self.name}: {action!r} is not in {self.action_space}")
        return action

    def _made(self) -> Any:
        import gymnasium

        if not isinstance(self.make, str):
            env = self.make()
        else:
            try:
                env = gymnasium.make(self.make, disable_env_checker=True)
            except gymnasium.error.Error as error:
                raise StlError(f"gymnasium.make({self.make!r}) failed: {' '.join(str(error).split())}") from None
        if not isinstance(env, gymnasium.Env):
            raise StlError(f"make gave a {type(env).__name__}; it has to make one gymnasium.Env (no vector of them)")
        return env

    def _shown(self, observation: Any, info: dict[str, Any], terminated: bool = False, truncated: bool = False
               ) -> Observation:
        text = self.observe(observation, info) if self.observe else render(self.observation_space, observation)
        if not isinstance(text, str):
            raise StlError(f"{self.name}: observe gave a {type(text).__name__}; it has to give a text")
        actions: tuple[str, ...] | None = None
        if terminated or truncated:
            return Observation(f"{text}\n{ENDED}".lstrip(), None, terminated, truncated, ())
        if self.possible is not None:
            actions = tuple(self.possible(observation, info))
        elif self.names:
            mask = info.get("action_mask")
            actions = tuple(self.names) if mask is None else tuple(
                name for name, may in zip(self.names, mask, strict=True) if may)
        return Observation(text, None, actions=actions)

    def _state(self, task: Task, seen: Observation, history: tuple[str, ...], before: tuple[str, ...]) -> State:
        key = json.dumps(history) if self.key == "path" else None
        return super()._state(task, seen._replace(key=key), history, before)

    def _means(self) -> tuple[Branching, str | None]:
        """How it can come back to a state. Raises StlError where it cannot."""
        plays = replays(self)
        if self.save_to is not None:
            if why := branches(self, plays, self._by_snapshot):
                raise StlError(f"{self.name}: snapshot and recover do not bring it back: {why}; mend them, or leave "
                               "them out: paths are then replayed")
            return "snapshot", None
        why = branches(self, plays, lambda seed, play: copy.deepcopy(play))
        return ("replay", why) if why else ("copy", None)

    def _by_snapshot(self, seed: int, play: Play) -> Play:
        assert self.save_to is not None
        return self.recovered(seed, (self.save_to(play.env), play.shown))

    # What came of it

    def answer(self, task: Task, state: State) -> str:
        """The actions, as a JSON list."""
        return json.dumps(state.history)

    def _score(self, task: Task, answer: str) -> float:
        """Of the path that `answer` lists, played in a new environment; 0 where it cannot be played."""
        try:
            rewards = self._rewards(task, json.loads(answer))
        except (ValueError, TypeError):  # no JSON list of texts, or (a TaskError) no actions
            return 0.0
        if self.scoring is None:
            low, high = self.reward_range
            return min(max((sum(rewards) - low) / (high - low), 0.0), 1.0)
        score = float(self.scoring(rewards))
        if not 0.0 <= score <= 1.0:
            raise StlError(f"{self.name}: score gave {score:g} for {short(answer)}; scores are from 0 to 1")
        return score

    def _rewards(self, task: Task, actions: list[str]) -> list[float]:
        play, rewards = self.started(_seed_of(task), task.fields.get("options")), list[float]()
        try:
            for text in actions:
                if play.shown.terminated or play.shown.truncated:
                    raise TaskError(f"{text!r} comes after the end")
                if play.shown.actions is not None and text not in play.shown.actions:
                    raise TaskError(f"{text!r} is not possible in {short(play.shown.text)}")
                rewards.append(self.take(play, self.meant(text)))
        finally:
            play.env.close()
        return rewards


def _seed_of(task: Task) -> int:
    return int(task.id.split()[1])
