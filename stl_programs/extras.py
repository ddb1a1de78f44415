"""Libraries that not every use needs: pip installs them as extras, and what needs one asks here before it begins."""

from __future__ import annotations

from importlib.util import find_spec

from stl_programs.errors import StlError

LOCAL = ("torch", "transformers", "safetensors", "peft")
EXTRAS = {"local": LOCAL, "train": (*LOCAL, "trl", "datasets"), "track": ("mlflow",),
          "report": ("matplotlib", "rich"), "gym": ("gymnasium",)}
"""What each extra of pyproject.toml brings, by import name. `local`: models of this process, with their adapters;
`train`: adapters; `track`: MLflow; `report`: tables, figures and intervals of experiments; `gym`:
`GymnasiumEnvironment`."""


def need(whom: str, *libraries: str, error: type[StlError] = StlError) -> None:
    """Raise `error`, with the command that mends it, unless every one of `libraries` is installed. Imports none.

    Args:
        whom: what needs them, as the message begins.
        libraries: import names that one of EXTRAS brings.

    Example:
        >>> need("embedded/game24", "torch", "transformers")
        StlError: embedded/game24 needs torch and transformers: pip install 'stl-programs[local]'
    """
    if missing := [library for library in libraries if not _installed(library)]:
        extra = next(extra for extra, brought in EXTRAS.items() if set(libraries) <= set(brought))
        named = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise error(f"{whom} needs {named}: pip install 'stl-programs[{extra}]'")


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ImportError:
        return False
