"""How programs and their parts are saved: settings by name, parts by kind, JSON only.

A module that is `Saved` names its constructor's settings; what it is made of (predictors, other saved modules, lists of
them) is found from its attributes, as dspy finds parameters. Any dspy.Module around it saves and loads it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import dspy
from dspy.predict.parameter import Parameter

from stl_programs.construct import check_types, construct, missing
from stl_programs.errors import StlError
from stl_programs.models.credentials import public
from stl_programs.outside import parsed, said, shown
from stl_programs.predictor import Predictor
from stl_programs.saved_settings import decoded_settings, settings_of
from stl_programs.saved_states import SavedModule, SavedSettings

Part = Any
"""A Predictor, a Saved module, any other dspy module, or a list or dict of them."""


class Saved(dspy.Module):
    """Base of what a saved program names by its kind: the name of its class. A subclass is known by being defined.

    Raises TypeError, where it is defined, for a name that a class of this package has.
    """

    settings: tuple[str, ...] = ()
    """Names of attributes that are saved: constructor arguments that are JSON, a scale or a budget."""
    arguments: ClassVar[dict[str, str]] = {}
    """Constructor arguments by the settings that have other names than they."""
    kinds: ClassVar[dict[str, type[Saved]]] = {}

    __getattribute__ = object.__getattribute__  # dspy's looks at every access, to warn of calls of `forward`

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        taken = Saved.kinds.get(cls.__name__)
        if taken and taken.__module__ != cls.__module__ and taken.__module__.partition(".")[0] == __package__:
            raise TypeError(f"{cls.__name__} is a class of {taken.__module__}, and a saved program names its parts by "
                            "their class's name alone; give yours another name")
        Saved.kinds[cls.__name__] = cls

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """Everything that makes this module what it is: kind, settings, parts. Holds no key and no weights."""
        return {"kind": type(self).__name__, "settings": settings_of(self),
                "parts": {name: _dumped(part) for name, part in _parts(self)}}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> Self:
        """Become what `state` says. A part of another kind is replaced by one of that kind.

        Raises StlError for a state of another kind, for a kind that no imported class has, and for settings that the
        constructor would refuse.
        """
        saved = parsed(SavedModule, state, f"no saved {type(self).__name__}")
        if saved.kind != type(self).__name__:
            raise StlError(f"the saved part is a {saved.kind[:100]}, this is a {type(self).__name__}")
        settings, places = decoded_settings(self, saved.settings), _places(self)
        if lost := [name for name, part in places.items() if part and name not in saved.parts]:
            raise StlError(f"the saved {saved.kind} says nothing of its {lost[0]}, and this one has one; load the file "
                           "that save wrote")
        for name, part in saved.parts.items():
            if name not in places:
                raise StlError(f"{type(self).__name__} has no part {name[:100]!r}; it has "
                               f"{', '.join(places) or 'none'}: build the program as the saved "
                               "one was, then load")
            setattr(self, name, _within(name, part, places[name], allow_unsafe_lm_state))
        _take(self, settings)
        return self

    def check_restored(self, settings: dict[str, Any]) -> None:
        """Raises ValueError for settings of a file that are no arguments of the constructor, and wrong."""

    def named_parameters(self) -> list[tuple[str, Any]]:
        """As dspy's, and before them the settings, so that an outer module saves them with its own."""
        return [("settings", _Settings(self)), *super().named_parameters()]


class _Settings(Parameter):
    """The settings of a module, as dspy saves parameters."""

    def __init__(self, module: Saved):
        self.module = module

    def reset(self) -> None:
        """Settings are no result of an optimizer: they stay."""

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        module = self.module
        return {"kind": type(module).__name__, "shape": shape(module),
                "settings": settings_of(module)}

    def load_state(self, state: dict[str, Any]) -> None:
        saved = parsed(SavedSettings, state, "no saved settings")
        if (found := shape(self.module)) != saved.shape:
            raise StlError(f"the saved program is made of {saved.shape[:500]}, this one of {found}; build it of "
                           "the same parts before loading (a compiled PerDepth has one Value per depth)")
        _take(self.module, decoded_settings(self.module, saved.settings))


def shape(module: Saved) -> str:
    """The kinds that a module is made of, like `GreedySearch(policy=LegalMoves(), value=Value())`."""
    inner = (f"{name}={shape(part)}" for name, part in _parts(module) if isinstance(part, Saved))
    lists = (f"{name}=[{', '.join(shape(one) for one in part)}]" for name, part in _parts(module)
             if isinstance(part, list) and part and isinstance(part[0], Saved))
    return f"{type(module).__name__}({', '.join((*inner, *lists))})"


def _take(module: Saved, settings: dict[str, Any]) -> None:
    """Set what a file says, once the class's own constructor would take it."""
    given = _given(type(module), settings)
    check_types(type(module), given)
    for name in missing(type(module), given):
        if hasattr(module, name):
            given[name] = getattr(module, name)
    if not missing(type(module), given):
        construct(type(module), given)
    try:
        module.check_restored(settings)
    except (ValueError, TypeError) as error:
        raise StlError(f"{type(module).__name__}: {said(error)}") from None
    for name, setting in settings.items():
        setattr(module, name, setting)


def _given(kind: type[Saved], settings: dict[str, Any]) -> dict[str, Any]:
    return {kind.arguments.get(name, name): setting for name, setting in settings.items()}


def build(state: dict[str, Any], allow_unsafe_lm_state: bool = False) -> Saved:
    """The part that `state` describes, by its kind: made by its class's constructor, then filled.

    Raises StlError where no class of that name is defined (import the module that defines it before loading), and for
    one whose constructor needs what a file does not hold.
    """
    saved = parsed(SavedModule, state, "no saved part")
    kind = Saved.kinds.get(saved.kind)
    if kind is None:
        raise StlError(f"the saved program holds a {saved.kind[:100]!r}, and no such class is imported; import the "
                       "module that defines it, then load again")
    settings = {name: setting for name, setting in saved.settings.items() if name in kind.settings
                and not (isinstance(setting, dict) and "function" in setting)}
    given, parts = _given(kind, decoded_settings(kind.__new__(kind), settings)), dict(saved.parts)
    for name in missing(kind, given):
        source = "predict" if name == "signature" else name
        if source in parts:
            parts[source] = _within(source, parts[source], None, allow_unsafe_lm_state)
            given[name] = getattr(parts[source], "signature", None) if name == "signature" else parts[source]
    if needed := missing(kind, given):
        raise StlError(f"the saved program holds a {saved.kind}, whose constructor needs {' and '.join(needed)}, which "
                       "no file holds; build the program with one in that place, then load")
    made: Saved = construct(kind, given)
    return made.load_state({**state, "parts": parts}, allow_unsafe_lm_state=allow_unsafe_lm_state)


def _places(module: Saved) -> dict[str, Part]:
    """The attributes of a module that hold parts, or could."""
    return {name: part for name, part in vars(module).items() if name not in _OF_DSPY and name not in module.settings
            and (_is_part(part) or part is None or part in ([], {}))}


_OF_DSPY = frozenset(vars(dspy.Module()))
"""Attributes of every dspy module."""


def _parts(module: Saved) -> Iterator[tuple[str, Part]]:
    for name, part in vars(module).items():
        if _is_part(part):
            yield name, part


def _is_part(part: Part) -> bool:
    if isinstance(part, list):
        return bool(part) and all(isinstance(one, dspy.Module) for one in part)
    if isinstance(part, dict):
        return bool(part) and all(isinstance(one, dspy.Module) for one in part.values())
    return isinstance(part, dspy.Module)


def _dumped(part: Part) -> Any:
    if isinstance(part, list):
        return [_dumped(one) for one in part]
    if isinstance(part, dict):
        return {"of": {name: _dumped(one) for name, one in part.items()}}
    if isinstance(part, (Predictor, Saved)):
        return part.dump_state()
    return {"dspy": type(part).__name__, "state": _without_keys(part.dump_state())}


def _without_keys(state: Any) -> Any:
    """A state of dspy's, whose LMs may hold what is nobody else's."""
    if isinstance(state, dict):
        return {name: public(inner) if name == "lm" else _without_keys(inner) for name, inner in state.items()}
    return state


def _within(name: str, state: Any, present: Part, unsafe: bool) -> Part:
    """`_loaded`, with the part's name before whatever is wrong in it."""
    try:
        return _loaded(state, present, unsafe)
    except StlError as error:
        raise type(error)(f"{name[:100]}: {error}") from None


def _loaded(state: Any, present: Part, unsafe: bool) -> Part:
    """`present` where it is of the saved kind, made to be what the state says; else a new part."""
    if isinstance(state, list):
        row = present if isinstance(present, list) and len(present) == len(state) else [None] * len(state)
        return state if _is_part(state) else [
            _within(str(i), one, of, unsafe) for i, (one, of) in enumerate(zip(state, row, strict=True))]
    if isinstance(state, dspy.Module):
        return state
    if not isinstance(state, dict):
        raise StlError(f"{shown(state)} is no part of a program")
    if isinstance(state.get("of"), dict):
        old = present if isinstance(present, dict) else {}
        return {name: _within(shown(name), one, old.get(name), unsafe) for name, one in state["of"].items()}
    if isinstance(present, Predictor) and not {"signature", "lm"} <= set(state):
        raise StlError("the saved part is no predictor, and this one is; build the program of the same parts before "
                       "loading")
    if "dspy" in state:
        return _loaded_by_dspy(state, present, unsafe)
    if "kind" in state:
        if type(present).__name__ == state["kind"]:
            return present.load_state(state, allow_unsafe_lm_state=unsafe)
        return build(state, unsafe)
    if isinstance(present, Saved):
        raise StlError(f"the saved part says no kind, and this one is a {type(present).__name__}")
    predictor = present if isinstance(present, Predictor) else Predictor.blank()
    return predictor.load_state(state, allow_unsafe_lm_state=unsafe)


def _loaded_by_dspy(state: dict[str, Any], present: Part, unsafe: bool) -> dspy.Module:
    """A dspy module's own state, into the one at hand: dspy does not say how to build it."""
    if type(present).__name__ != state["dspy"] or isinstance(present, (Saved, Predictor)):
        found = "nothing" if present is None else f"a {type(present).__name__}"
        raise StlError(f"the saved program holds a dspy.{shown(state['dspy'])}, and this one has {found} in its place; "
                       "build it of the same parts before loading")
    try:
        present.load_state(state.get("state"), allow_unsafe_lm_state=unsafe)
    except StlError:
        raise
    except Exception as error:  # dspy says in many ways that a state is none
        raise StlError(f"no saved dspy.{type(present).__name__}: {said(error)}") from None
    return present
