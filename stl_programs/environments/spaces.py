"""Observations and actions of Gymnasium's spaces as text."""

from __future__ import annotations

import json
from typing import Any

from stl_programs.errors import TaskError

MOST_NUMBERS = 64
"""Numbers of a Box that are written out; more of them is a picture, and no text."""


def unreadable(space: Any) -> str | None:
    """Why an observation of `space` cannot be written as text by itself; None where it can."""
    from gymnasium import spaces

    match space:
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary() | spaces.Text():
            return None
        case spaces.Box():
            count = space.low.size
            return None if count <= MOST_NUMBERS else f"a Box of {count} numbers (at most {MOST_NUMBERS} are written)"
        case spaces.Dict():
            return next(filter(None, map(unreadable, space.spaces.values())), None)
        case spaces.Tuple():
            return next(filter(None, map(unreadable, space.spaces)), None)
    return f"a space of kind {type(space).__name__}"


def render(space: Any, value: Any) -> str:
    """An observation as text: numbers as they are (six digits of a float), a Dict with one named entry a line."""
    from gymnasium import spaces

    match space:
        case spaces.Text():
            return str(value)
        case spaces.Dict():
            return "\n".join(f"{name}: {render(inner, value[name])}" for name, inner in space.spaces.items())
        case spaces.Tuple():
            return ", ".join(render(inner, one) for inner, one in zip(space.spaces, value, strict=True))
    return _numbers(value.tolist() if hasattr(value, "tolist") else value)


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        nested = any(isinstance(one, list) for one in value)
        return ("\n" if nested else " ").join(map(_numbers, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def unwritable(space: Any) -> str | None:
    """Why no text of a policy means an action of `space` by itself; None where one does."""
    from gymnasium import spaces

    match space:
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary() | spaces.Text():
            return None
        case spaces.Box():
            return f"actions are the continuous numbers of {space}"
    return f"actions are of kind {type(space).__name__}"


def parse(space: Any, text: str) -> Any:
    """The action that `text` means: itself, a number, or numbers with spaces between. Raises TaskError for none."""
    from gymnasium import spaces

    if isinstance(space, spaces.Text):
        return text
    try:
        numbers = json.loads(f"[{','.join(text.strip('[]() ').replace(',', ' ').split())}]")
        action = int(text) if isinstance(space, spaces.Discrete) else space.from_jsonable([numbers])[0]
    except (ValueError, TypeError, OverflowError):
        raise TaskError(f"{text!r} is no action; an action of {space} is written in numbers, like "
                        f"{render(space, space.sample())!r}") from None
    return action
