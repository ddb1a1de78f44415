"""Plays of a Gymnasium environment that show whether it can be played again, and how it can branch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from stl_programs.environments.parking import short
from stl_programs.environments.sessions import Observation
from stl_programs.errors import StlError

SEEDS = (0, 1)
STEPS = 12
"""Of one play."""
AHEAD = 3
"""Steps that a copy takes before its original takes one."""
Twin = tuple[Any, Observation]
"""A snapshot, and what was shown where it was taken."""


class Sight(NamedTuple):
    """What came of one step. `reward` is compared here, and told to no search."""

    shown: Observation
    reward: float


class Recorded(NamedTuple):
    """A play: `sights[i]` is what came after `actions[:i]`."""

    seed: int
    actions: list[Any]
    sights: list[Sight]


def replays(world: Any) -> list[Recorded]:
    """A few plays by random actions, each played twice. Raises StlError where the second shows something else."""
    plays = []
    for seed in SEEDS:
        first = played(world, seed)
        again = played(world, seed, first.actions)
        for i, (then, now) in enumerate(zip(first.sights, again.sights, strict=False)):
            if then != now:
                raise StlError(f"{world.name} cannot be searched: with seed {seed}, after {i} steps, it showed "
                               f"{differing(then, now)} when it was played again; draw all chance from the generator "
                               "that reset(seed=...) seeds (Env.np_random)")
        plays.append(first)
    return plays


def played(world: Any, seed: int, actions: list[Any] | None = None) -> Recorded:
    """One play in a new environment: `actions`, or random ones, up to an end."""
    draw = random.Random(seed)
    world.action_space.seed(seed)
    play = world.started(seed)
    done, sights = list[Any](), [Sight(play.shown, 0.0)]
    try:
        while len(done) < (STEPS if actions is None else len(actions)) and not ended(play.shown):
            done.append(_random_action(world, play.shown, draw) if actions is None else actions[len(done)])
            reward = world.take(play, done[-1])
            sights.append(Sight(play.shown, reward))
    finally:
        play.env.close()
    return Recorded(seed, done, sights)


def _random_action(world: Any, shown: Observation, draw: random.Random) -> Any:
    return world.meant(draw.choice(shown.actions)) if shown.actions else world.action_space.sample()


def branches(world: Any, plays: list[Recorded], twin_of: Callable[[int, Any], Any]) -> str | None:
    """Why twins are no second sessions; None where they and their originals show what was recorded.

    At every step of the plays a twin is made, which goes ahead; then the original takes the step.
    """
    for seed, actions, sights in plays:
        play = world.started(seed)
        try:
            for i, action in enumerate(actions):
                if (shown := _went_ahead(world, twin_of(seed, play), actions[i:i + AHEAD], sights[i + 1:])) is not None:
                    return f"a copy that was made after {i} steps showed {shown}"
                if (found := _stepped(world, play, action)) != sights[i + 1]:
                    return (f"after {i} steps, and more in a copy, the original showed "
                            f"{differing(sights[i + 1], found)}")
        except Exception as error:  # what copying and stepping a copy may raise is the environment's own
            return f"a copy fails with {type(error).__name__}: {' '.join(str(error).split())}"
        finally:
            play.env.close()
    return None


def _went_ahead(world: Any, twin: Any, actions: list[Any], sights: list[Sight]) -> str | None:
    """What differs from `sights` when a twin takes `actions`; None where nothing does."""
    try:
        for action, then in zip(actions, sights, strict=False):
            if (found := _stepped(world, twin, action)) != then:
                return differing(then, found)
    finally:
        twin.env.close()
    return None


def _stepped(world: Any, play: Any, action: Any) -> Sight:
    reward = world.take(play, action)
    return Sight(play.shown, reward)


def ended(shown: Observation) -> bool:
    return shown.terminated or shown.truncated


def differing(then: Sight, now: Sight) -> str:
    """Two sights that differ, in words."""
    if then.shown.text != now.shown.text:
        return f"{short(now.shown.text)} in place of {short(then.shown.text)}"
    if then.reward != now.reward:
        return f"{short(now.shown.text)} with another reward"
    return f"{short(now.shown.text)} with another end, or other actions"
