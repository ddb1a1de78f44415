"""Settings of a module as JSON: scales, budgets and numbers by what they are, functions by name."""

from __future__ import annotations

import hashlib
from math import isfinite
from typing import Any, Protocol

from signatures import LabelScale, NumberScale
from stl_programs.engine import Budget
from stl_programs.errors import StlError
from stl_programs.models.credentials import ALWAYS
from stl_programs.outside import said, shown
from stl_programs.saved_states import Labels, Numbers, budget_of


class HasSettings(Protocol):
    """A module that names its settings."""

    settings: tuple[str, ...]


def settings_of(module: HasSettings) -> dict[str, Any]:
    """The settings of a module as JSON. Raises StlError for one that is none, or is named like a credential."""
    found = {name: encoded(getattr(module, name)) for name in module.settings}
    for name, setting in found.items():
        if isinstance(setting, str) and ALWAYS.search(name):
            raise StlError(f"the setting {name} of {type(module).__name__} is named like a credential, and none is "
                           "saved; read it from the environment, and take it out of `settings`")
    return found


def decoded_settings(module: HasSettings, saved: dict[str, Any]) -> dict[str, Any]:
    """What a saved part says. Raises StlError for a name that is no setting of the module's class, for a function that
    the module does not have, and for what is no setting at all."""
    kind = type(module).__name__
    if unknown := sorted(set(saved) - set(module.settings)):
        raise StlError(f"{kind} has no setting {', '.join(map(shown, unknown))[:200]}; it has "
                       f"{', '.join(module.settings) or 'none'}: load it with the version that saved it")
    found = {}
    for name, setting in saved.items():
        if not (isinstance(setting, dict) and "function" in setting):
            try:
                found[name] = decoded(setting)
            except (ValueError, TypeError) as error:
                raise StlError(f"{kind}: {name}: {said(error)}") from None
        elif encoded(getattr(module, name, None)) != setting:
            raise StlError(f"{kind} was saved with {name}={shown(setting['function'])}; functions are not loaded from "
                           "files: build the program with that one, then load")
    return found


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
    if isinstance(setting, float) and not isfinite(setting):
        return {"number": str(setting)}
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
    """The inverse of `encoded`. Raises ValueError for what it never says."""
    match setting:
        case {"labels": _}:
            return Labels.model_validate(setting).scale()
        case {"low": _, "high": _}:
            return Numbers.model_validate(setting).scale()
        case {"budget": limits}:
            return budget_of(limits)
        case {"number": "inf" | "-inf" as number}:
            return float(number)
        case list():
            return [decoded(one) for one in setting]
        case None | bool() | int() | str():
            return setting
        case float() if isfinite(setting):
            return setting
    raise ValueError(f"{shown(setting)} is no setting: settings are JSON, scales, budgets or functions by name")
