"""How programs and their parts are saved: settings by name, parts by kind, JSON only.

A module that is `Saved` names its constructor's settings; what it is made of (predictors, other saved modules, lists of
them) is found from its attributes, as dspy finds parameters. Any dspy.Module around it saves and loads it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import dspy
from dspy.predict.parameter import Parameter

from signatures import LabelScale, NumberScale, Scale
from stl_programs.engine import Budget
from stl_programs.errors import StlError
from stl_programs.predictor import Predictor

Part = Any
"""A Predictor, a Saved module, any other dspy module, or a list or dict of them."""


class Saved(dspy.Module):
    """Base of what a saved program names by its kind: the name of its class. A subclass is known by being defined.

    Raises TypeError, where it is defined, for a name that a class of this package has.
    """

    settings: tuple[str, ...] = ()
    """Names of attributes that are saved: constructor arguments that are JSON, a scale or a budget."""
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
        return {"kind": type(self).__name__, "settings": {name: encoded(getattr(self, name)) for name in self.settings},
                "parts": {name: _dumped(part) for name, part in _parts(self)}}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> Self:
        """Become what `state` says. A part of another kind is replaced by one of that kind.

        Raises StlError for a state of another kind, and for a kind that no imported class has.
        """
        if state.get("kind") != type(self).__name__:
            raise StlError(f"the saved part is a {state.get('kind')}, this is a {type(self).__name__}")
        restore_settings(self, state["settings"])
        present = dict(_parts(self))
        for name, part in state["parts"].items():
            setattr(self, name, _loaded(part, present.get(name), allow_unsafe_lm_state))
        return self

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
                "settings": {name: encoded(getattr(module, name)) for name in module.settings}}

    def load_state(self, state: dict[str, Any]) -> None:
        if (found := shape(self.module)) != state["shape"]:
            raise StlError(f"the saved program is made of {state['shape']}, this one of {found}; build it of the same "
                           "parts before loading (a compiled PerDepth has one Value per depth)")
        restore_settings(self.module, state["settings"])


def shape(module: Saved) -> str:
    """The kinds that a module is made of, like `GreedySearch(policy=LegalMoves(), value=Value())`."""
    inner = (f"{name}={shape(part)}" for name, part in _parts(module) if isinstance(part, Saved))
    lists = (f"{name}=[{', '.join(shape(one) for one in part)}]" for name, part in _parts(module)
             if isinstance(part, list) and part and isinstance(part[0], Saved))
    return f"{type(module).__name__}({', '.join((*inner, *lists))})"


def restore_settings(module: Saved, settings: dict[str, Any]) -> None:
    """Set what a saved part says. Raises StlError for a name that is no setting of the module's class."""
    if unknown := set(settings) - set(module.settings):
        raise StlError(f"{type(module).__name__} has no setting {', '.join(sorted(unknown))}; it has "
                       f"{', '.join(module.settings) or 'none'}: load it with the version that saved it")
    for name, setting in settings.items():
        if not (isinstance(setting, dict) and "function" in setting):
            setattr(module, name, decoded(setting))
        elif encoded(getattr(module, name, None)) != setting:
            raise StlError(f"{type(module).__name__} was saved with {name}={setting['function']}; functions are not "
                           "loaded from files: build the program with that one, then load")


def build(state: dict[str, Any], allow_unsafe_lm_state: bool = False) -> Saved:
    """The part that `state` describes, by its kind.

    Raises StlError where no class of that name is defined: import the module that defines it before loading.
    """
    kind = state.get("kind")
    found = Saved.kinds.get(str(kind))
    if found is None:
        raise StlError(f"the saved program holds a {kind!r}, and no such class is imported; import the module that "
                       "defines it, then load again")
    part = found.__new__(found)
    dspy.Module._base_init(part)
    return part.load_state(state, allow_unsafe_lm_state=allow_unsafe_lm_state)


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
    return {"dspy": type(part).__name__, "state": part.dump_state()}


def _loaded(state: Any, present: Part, unsafe: bool) -> Part:
    """`present` where it is of the saved kind, made to be what the state says; else a new part."""
    if isinstance(state, list):
        row = present if isinstance(present, list) and len(present) == len(state) else [None] * len(state)
        return [_loaded(one, of, unsafe) for one, of in zip(state, row, strict=True)]
    if "of" in state:
        old = present if isinstance(present, dict) else {}
        return {name: _loaded(one, old.get(name), unsafe) for name, one in state["of"].items()}
    if "dspy" in state:
        return _loaded_by_dspy(state, present, unsafe)
    if "kind" in state:
        if type(present).__name__ == state["kind"]:
            return present.load_state(state, allow_unsafe_lm_state=unsafe)
        return build(state, unsafe)
    predictor = present if isinstance(present, Predictor) else Predictor.blank()
    return predictor.load_state(state, allow_unsafe_lm_state=unsafe)


def _loaded_by_dspy(state: dict[str, Any], present: Part, unsafe: bool) -> dspy.Module:
    """A dspy module's own state, into the one at hand: dspy does not say how to build it."""
    if type(present).__name__ != state["dspy"]:
        found = "nothing" if present is None else f"a {type(present).__name__}"
        raise StlError(f"the saved program holds a dspy.{state['dspy']}, and this one has {found} in its place; build "
                       "it of the same parts before loading")
    present.load_state(state["state"], allow_unsafe_lm_state=unsafe)
    return present


def encoded(setting: Any) -> Any:
    """A setting as JSON. Raises StlError for one that is none."""
    if isinstance(setting, LabelScale):
        return {"labels": [list(label) for label in setting.labels]}
    if isinstance(setting, NumberScale):
        return {"low": setting.low, "high": setting.high}
    if isinstance(setting, Budget):
        return {"budget": setting.to_dict()}
    if isinstance(setting, (list, tuple)):
        return [encoded(one) for one in setting]
    if setting is None or isinstance(setting, (bool, int, float, str)):
        return setting
    if callable(setting):
        name = f"{setting.__module__}.{getattr(setting, '__qualname__', type(setting).__qualname__)}"
        return {"function": name} | ({"code": _code(setting)} if "<" in name else {})
    raise StlError(f"the setting {setting!r} cannot be saved: settings are JSON, scales, budgets or functions by name")


def _code(function: Any) -> str:
    """Tells lambdas and inner functions apart, which share their names."""
    code = function.__code__
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    return hashlib.blake2b(f"{code.co_code.hex()} {code.co_consts} {code.co_names} {held}".encode(),
                           digest_size=6).hexdigest()


def decoded(setting: Any) -> Any:
    """The inverse of `encoded`."""
    match setting:
        case {"labels": labels}:
            scale: Scale = LabelScale(tuple((str(word), float(worth)) for word, worth in labels))
            return scale
        case {"low": low, "high": high}:
            return NumberScale(float(low), float(high))
        case {"budget": limits}:
            return Budget(**limits)
        case list():
            return [decoded(one) for one in setting]
    return setting
