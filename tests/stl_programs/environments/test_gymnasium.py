"""Gymnasium's own environments and a text game under real searches; what cannot be a world says why in one line."""

from __future__ import annotations

import json
import pickle
import string
from functools import partial

import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium import spaces  # noqa: E402
from gymnasium.utils import EzPickle  # noqa: E402

from stl_programs import (  # noqa: E402
    MCTS,
    BeamSearch,
    BestFirstSearch,
    GymnasiumEnvironment,
    LegalMoves,
    Policy,
    Value,
    run_sync,
    run_tasks,
)
from stl_programs.environments import sealed_reward  # noqa: E402
from stl_programs.errors import RewardSealed, StlError, TaskError  # noqa: E402
from stl_programs.records import Action, ValueEstimate  # noqa: E402
from stl_programs.testing import ScriptedModel  # noqa: E402
from stl_programs.values import BaseValue  # noqa: E402

DIRECTIONS = ["left", "down", "right", "up"]
LAKE = partial(gymnasium.make, "FrozenLake-v1", is_slippery=False)
HOLES, GOAL = (5, 7, 11, 12), 15
GAME = ["go north", "take lamp", "go south", "open chest", "use lamp"]


class Nearer(BaseValue):
    """Cells of a lake, by what is left to the goal; a hole is worth nothing."""

    async def estimate(self, situation):
        cell = int(situation.state.text.split()[0])
        return ValueEstimate(1.0 if cell in HOLES else 10.0 - (6 - cell // 4 - cell % 4))


class Longer(BaseValue):
    """Whoever has got further is better."""

    async def estimate(self, situation):
        return ValueEstimate(1.0 + min(situation.depth, 9))


class Cellar(gymnasium.Env):
    """A text game: take the lamp in the north, open the chest in the south."""

    observation_space, action_space = spaces.Text(200), spaces.Text(40, charset=f"{string.ascii_lowercase} ")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room, self.lamp, self.code = "south", bool((options or {}).get("lamp")), int(self.np_random.integers(100))
        return self.seen(), self.info()

    def seen(self):
        lamp = "You carry a lamp." if self.lamp else "It is dark."
        return f"You are in the {self.room} of cellar {self.code}. {lamp}"

    def info(self):
        return {"admissible": ["go north", "open chest"] if self.room == "south" else ["go south", "take lamp"]}

    def step(self, action):
        if action.startswith("go "):
            self.room = action.removeprefix("go ")
        self.lamp = self.lamp or action == "take lamp"
        done = action == "open chest"
        return self.seen(), float(done and self.lamp), done, False, self.info()


class Counter(gymnasium.Env):
    """Counts up to 5; `choices` is the base of what goes wrong below."""

    observation_space, action_space = spaces.Discrete(6), spaces.Discrete(2)

    def __init__(self):
        self.count = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.count, {}

    def step(self, action):
        self.count += int(action)
        return self.count, float(action), self.count == 5, False, {}


class Pickled(Counter, EzPickle):
    """Deepcopy makes it anew, as it does of every EzPickle environment."""

    def __init__(self):
        Counter.__init__(self)
        EzPickle.__init__(self)


class Forgetful(Pickled):
    """The same, and begun at once: a copy is at the start without an error."""

    def __init__(self):
        super().__init__()
        self.count = 0


class Shared(Counter):
    """Copies share what a step changes."""

    def reset(self, *, seed=None, options=None):
        self.log = Log()
        return super().reset(seed=seed)

    def step(self, action):
        self.log.append(action)
        self.count = min(sum(map(int, self.log)), 5)
        return self.count, float(action), self.count == 5, False, {}


class Log(list):
    def __deepcopy__(self, memo):
        return self


class Unseeded(Counter):
    """Luck that no seed fixes."""

    luck = 0

    def step(self, action):
        type(self).luck += 1
        self.count = type(self).luck % 5
        return self.count, 0.0, False, False, {}


def lake(**options):
    return GymnasiumEnvironment(LAKE, goal="Cross the lake.", actions=DIRECTIONS, max_depth=8, **options)


def cellar(**options):
    return GymnasiumEnvironment(Cellar, goal="Open the chest with light.", max_depth=6,
                                actions=lambda observation, info: info["admissible"], **options)


async def walk(env, task, *actions):
    state = await env.areset(env.task(task))
    for action in actions:
        state = (await env.astep(state, Action(action))).state
    return state


@pytest.mark.parametrize("search", [BeamSearch, BestFirstSearch, partial(MCTS, simulations=60)])
def test_frozen_lake_is_crossed(search):
    env = lake()
    assert env.branching == "copy" and env.name == "FrozenLake-v1" and env.listable and env.cyclic
    [result] = run_sync(run_tasks(search(env, LegalMoves(), Nearer()), ["seed 0"]))
    assert result.error is None and env.score(env.task("0"), result.answer) == 1.0
    assert json.loads(result.answer) == result.trajectory and set(result.trajectory) <= set(DIRECTIONS)


def test_a_policy_and_a_value_of_a_model_play_frozen_lake():
    env = lake()
    policy = ScriptedModel("scripted/walker", lambda messages, seed: "down ; 2 ; jump ; right")
    value = ScriptedModel("scripted/judge", lambda messages, seed: f"so | {1 + seed % 9}")
    program = BeamSearch(env, Policy(env.policy_signature, policy, format="compact"),
                         Value(env.value_signature, value, format="compact"), width=3)
    result = program(task="seed 0")
    assert set(result.trajectory) <= {"down", "right"} and result.usage["policy (refused actions)"]["samples"]
    reply = '[[ ## actions ## ]]\n["down"]\n\n[[ ## completed ## ]]'
    chat = ScriptedModel("scripted/chat", lambda messages, seed: reply)
    BeamSearch(env, Policy(env.policy_signature, chat, format="chat"), Longer())(task="seed 0")
    asked = chat.requests[0][0]
    assert "possible_actions" in asked and all(name in asked for name in DIRECTIONS) and "Cross the lake." in asked


def test_slippery_ice_is_the_same_ice_when_it_is_replayed():
    env = GymnasiumEnvironment("FrozenLake-v1", actions=DIRECTIONS, max_depth=20)
    env._branching = "replay"

    async def play():
        sights = set()
        for seed in range(4):
            state = await walk(env, f"seed {seed}")
            while not state.terminal:
                steps = [(await env.astep(state, Action(action))).state for action in DIRECTIONS]
                assert steps == [(await env.astep(state, Action(action))).state for action in DIRECTIONS]
                state = steps[len(state.history) % 4]
            sights.add((*state.history, state.text))
        await env.aclose()
        return sights

    assert len(run_sync(play())) == 4


def test_taxi_is_told_which_actions_are_possible():
    env = GymnasiumEnvironment("Taxi-v4", max_depth=12, actions=["south", "north", "east", "west", "pick up", "drop"],
                               reward_range=(-12, 20))
    assert env.branching == "copy"
    [result] = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Longer(), width=2), ["seed 3"]))
    assert result.error is None and 0.0 <= env.score(env.task("3"), result.answer) < 1.0
    state = run_sync(walk(env, "seed 0"))
    assert 0 < len(env.legal_actions(state)) < 6


def test_the_cliff_is_walked_along():
    env = GymnasiumEnvironment("CliffWalking-v1", actions=["up", "right", "down", "left"], max_depth=15,
                               reward_range=(-113, -13))

    class Along(BaseValue):
        async def estimate(self, situation):
            cell = int(situation.state.text.split()[0])
            left = cell % 12 - 11 if cell < 36 else -12
            return ValueEstimate(10.0 if cell == 47 else 9.0 + left / 2 - cell // 12 % 3 / 10 if cell < 36 else 1.0)

    [result] = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Along(), width=6), ["0"]))
    assert result.error is None and env.score(env.task("0"), result.answer) > 0.97
    with pytest.raises(StlError, match="CliffWalking-v1 has no limit on steps; pass max_depth="):
        GymnasiumEnvironment("CliffWalking-v1")


def test_cards_are_hidden_so_every_path_is_a_state_of_its_own():
    env = GymnasiumEnvironment("Blackjack-v1", actions=["stick", "hit"], max_depth=6, key="path", reward_range=(-1, 1))
    assert not env.cyclic
    results = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Longer(), width=4), env.tasks("train")[:5]))
    assert all(result.error is None for result in results)
    ends = [run_sync(walk(env, "seed 1", action)) for action in ("stick", "hit")]
    assert ends[0].terminal and ends[0].text.endswith("(the episode has ended)") and ends[0].key != ends[1].key


@pytest.mark.parametrize("means", ["copy", "snapshot"])
def test_a_text_game_is_won(means):
    saving = {"snapshot": lambda env: (env.room, env.lamp, env.code),
              "recover": lambda env, saved: vars(env).update(zip(("room", "lamp", "code"), saved, strict=True))}
    env = cellar(**(saving if means == "snapshot" else {}))
    assert env.branching == means and env.not_copied is None

    class Light(BaseValue):
        async def estimate(self, situation):
            text = situation.state.text
            return ValueEstimate(1.0 + 4 * ("lamp" in text) + 4 * ("lamp" in text and "ended" in text) - (
                "dark" in text and "ended" in text))

    [result] = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Light(), width=3), ["seed 7"], keep_trees=True))
    assert result.error is None and result.trajectory == ["go north", "take lamp", "go south", "open chest"]
    assert env.score(env.task("seed 7"), result.answer) == 1.0
    model = ScriptedModel("scripted/player", lambda messages, seed: " ; ".join(GAME))
    found = BeamSearch(env, Policy(env.policy_signature, model, format="compact"), Light(), width=3)(task="seed 7")
    assert found.trajectory == result.trajectory


def test_options_of_a_task_reach_the_reset():
    env = cellar()
    result = BeamSearch(env, LegalMoves(), Longer())(task="seed 7", options={"lamp": True})
    assert "You carry a lamp." in result.tree.root.state.text
    task = result.tree.task
    assert env.score(task, '["open chest"]') == 1.0 and env.score(env.task("seed 7"), '["open chest"]') == 0.0


def test_no_state_holds_a_reward_and_the_score_is_sealed():
    env = lake()
    [result] = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Nearer()), ["seed 0"], keep_trees=True))
    assert "reward" not in json.dumps(result.tree).replace("reward-free", "")
    with sealed_reward(), pytest.raises(RewardSealed):
        env.score(env.task("0"), result.answer)


@pytest.mark.parametrize("answer", ["", "no list", "[1]", '["jump"]', '{"left": 1}', "3",
                                    '["down", "down", "right", "right", "down", "right", "up"]'])
def test_what_cannot_be_played_scores_nothing(answer):
    assert lake().score(lake().task("0"), answer) == 0.0


def test_returns_are_scaled_or_scored_by_a_function():
    assert GymnasiumEnvironment(Counter, max_depth=9, reward_range=(0, 4)).score(_task("0"), '["1", "1"]') == 0.5
    assert GymnasiumEnvironment(Counter, max_depth=9, reward_range=(0, 1)).score(_task("0"), '["1", "1"]') == 1.0
    assert GymnasiumEnvironment(Counter, max_depth=9, score=lambda rewards: rewards[-1] / 4).score(
        _task("0"), '["0", "1"]') == 0.25
    with pytest.raises(StlError, match=r"score gave 2 for .*; scores are from 0 to 1"):
        GymnasiumEnvironment(Counter, max_depth=9, score=sum).score(_task("0"), '["1", "1"]')


def _task(text):
    return GymnasiumEnvironment(Counter, max_depth=9).task(text)


def test_a_task_is_a_seed():
    env = lake()
    task = env.task("seed 3")
    assert task == env.task("3") == env.task(3) == env.task(task.text) and task.id == "seed 3"
    for text in ("three", "seed -1", "", "seed 3 4"):
        with pytest.raises(TaskError, match="a task is a seed, like 'seed 3'"):
            env.task(text)
    assert len({task.id for split in ("train", "validation", "test") for task in env.tasks(split)}) == 300


@pytest.mark.parametrize(("kind", "why"), [
    (Pickled, "a copy fails with TypeError"), (Forgetful, "a copy that was made after 1 steps showed '1' in place of"),
    (Shared, "after 0 steps, and more in a copy, the original showed")])
def test_copies_that_are_none_are_found_and_paths_are_replayed(kind, why):
    env = GymnasiumEnvironment(kind, max_depth=9)
    assert env.branching == "replay" and why in env.not_copied
    result = BeamSearch(env, LegalMoves(), Longer(), width=2)(task="0")
    assert result.trajectory == ["1"] * 5 and env.score(env.task("0"), result.answer) == 1.0
    assert GymnasiumEnvironment(Counter, max_depth=9).branching == "copy"


def test_an_environment_that_no_seed_fixes_is_refused():
    with pytest.raises(StlError, match=r"^Unseeded cannot be searched: with seed 0, after 1 steps, it showed '\d' in "
                                       r"place of '\d' when it was played again; draw all chance from [^\n]*$"):
        GymnasiumEnvironment(Unseeded, max_depth=9)


def test_a_snapshot_that_does_not_bring_back_is_refused():
    with pytest.raises(StlError, match="Counter: snapshot and recover do not bring it back: a copy that was"):
        GymnasiumEnvironment(Counter, max_depth=9, snapshot=lambda env: env.count, recover=lambda env, saved: None)


def _with(**found):
    return lambda: type("Odd", (Counter,), found)()


@pytest.mark.parametrize(("make", "options", "error", "why"), [
    (_with(action_space=spaces.Box(-1, 1, (2,))), {}, StlError, "cannot be played .*: actions are the continuous "
     r"numbers of Box\(.*pass act="),
    (_with(action_space=spaces.Dict({"a": spaces.Discrete(2)})), {}, StlError, "actions are of kind Dict; pass act="),
    (_with(observation_space=spaces.Box(0, 255, (84, 84, 3))), {}, StlError, "cannot be read .*: a Box of 21168 "
     "numbers"),
    (_with(observation_space=spaces.Sequence(spaces.Discrete(2))), {}, StlError, "a space of kind Sequence"),
    (Counter, {"actions": ["stay"]}, StlError, "has 2 actions, and actions= has 1 different names"),
    (_with(action_space=spaces.Text(3)), {"actions": ["a"]}, StlError, "names those of a Discrete space"),
    (Counter, {"key": "state"}, ValueError, r"key='state'\): it should be 'observation' or 'path'"),
    (Counter, {"reward_range": (1, 1)}, ValueError, "the first must be below the second"),
    (Counter, {"snapshot": len}, ValueError, "snapshot and recover belong together"),
    (Counter, {"observe": lambda observation, info: observation}, StlError, "observe gave a int"),
    (list, {}, StlError, "make gave a list"),
    ("Nowhere-v1", {}, StlError, r"gymnasium.make\('Nowhere-v1'\) failed"),
])
def test_what_cannot_be_a_world_says_why_in_one_line(make, options, error, why):
    with pytest.raises(error, match=f"^[^\n]*{why}[^\n]*$"):
        GymnasiumEnvironment(make, max_depth=9, **options)


def test_other_spaces_have_texts():
    class Mixed(Counter):
        observation_space = spaces.Dict({"place": spaces.Box(0, 1, (2,)), "cards": spaces.MultiDiscrete([3, 3]),
                                         "word": spaces.Text(5), "pair": spaces.Tuple([spaces.Discrete(2)] * 2)})
        action_space = spaces.MultiDiscrete([2, 3])

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.seen([0, 0]), {}

        def seen(self, cards):
            return {"place": self.observation_space["place"].high / 4, "cards": self.action_space.from_jsonable(
                [cards])[0], "word": "word", "pair": (0, 1)}

        def step(self, action):
            return self.seen(action.tolist()), 0.0, False, False, {}

    env = GymnasiumEnvironment(Mixed, max_depth=3)
    assert not env.listable and "possible_actions" not in env.policy_signature.input_fields
    state = run_sync(walk(env, "0", "1 2"))
    assert state.text == "pair: 0, 1\nplace: 0.25 0.25\ncards: 1 2\nword: word" or set(state.text.splitlines()) == {
        "pair: 0, 1", "place: 0.25 0.25", "cards: 1 2", "word: word"}
    for wrong in ("5 5", "up", "1", "1 2 3"):
        with pytest.raises(TaskError, match="is no action"):
            run_sync(walk(env, "0", wrong))


def test_a_box_of_actions_is_played_through_a_function():
    class Steered(Counter):
        action_space = spaces.Box(-1, 1, (1,))

        def step(self, action):
            return min(max(round(float(action[0])), 0), 5), 0.0, False, False, {}

    env = GymnasiumEnvironment(Steered, max_depth=3, act=lambda text: spaces.Box(-1, 1, (1,)).from_jsonable(
        [[{"left": -1.0, "right": 1.0}[text]]])[0])
    assert run_sync(walk(env, "0", "right")).text == "1"


def test_it_travels():
    env = lake()
    state = run_sync(walk(env, "0", "down"))
    other = pickle.loads(pickle.dumps(env))
    assert run_sync(other.astep(pickle.loads(pickle.dumps(state)), Action("down"))).state.text == "8"
