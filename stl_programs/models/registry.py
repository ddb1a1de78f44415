"""Models by their LiteLLM string, and the adapters that are versions of one.

    embedded/game24             a small model that ships with the package
    local/DIR                   a model directory (config, safetensors, tokenizer with a chat template), in this process
    openai/gpt-4o               anything that LiteLLM knows
    hosted_vllm/NAME            an OpenAI-compatible server at HOSTED_VLLM_API_BASE, or several with commas between them
    embedded/game24@value-v1    a LoRA adapter, by the version that it was registered under

An adapter is a version of a name, never new weights under an old one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import dspy

from stl_programs.errors import AdapterError, ModelError
from stl_programs.extras import LOCAL, need
from stl_programs.models.artifacts import PROVENANCE, adapter_hash
from stl_programs.models.base import Model, Reply, Request
from stl_programs.models.formats import FORMATS, format_name

EMBEDDED = Path(__file__).parent / "embedded"
IN_PROCESS = ("embedded/", "local/")
"""How the strings of models in this process begin."""
_bases: dict[str, Model] = {}
_adapters: dict[str, _Adapter] = {}
_of_objects: WeakKeyDictionary[Any, Model] = WeakKeyDictionary()


def string_of(lm: Any) -> str | None:
    """The model string behind an `lm` argument, as tables and saved programs name it."""
    return lm if lm is None or isinstance(lm, str) else getattr(lm, "model", None) or lm.name


def base_name(name: str) -> str:
    """`embedded/game24@value-v1` -> `embedded/game24`, where that version is registered; any other name stays: an "@"
    may be part of it, or of a path."""
    return name.rpartition("@")[0] if name in _adapters else name


def load(lm: str | dspy.BaseLM | Model | None) -> Model:
    """The model behind a LiteLLM string, a dspy LM or a Model; None means the one that dspy is configured with.

    Raises ModelError for a string that names none, or where there is no model at all.
    """
    lm = lm or dspy.settings.lm
    if lm is None:
        raise ModelError("no language model: pass lm='provider/model' or call dspy.configure(lm=...)")
    if isinstance(lm, dspy.BaseLM):
        if lm not in _of_objects:
            _of_objects[lm] = _behind(lm)
        return _of_objects[lm]
    if not isinstance(lm, str):
        return lm
    if "/" not in lm:
        raise ModelError(f"{lm!r} names no provider; write PROVIDER/MODEL, like openai/gpt-4o or embedded/game24")
    if lm in _adapters:
        return _Tuned(lm, _adapters[lm])
    if "@" in lm and lm.startswith(IN_PROCESS) and not (Path(lm.partition("/")[2]) / "config.json").is_file():
        raise AdapterError(f"{lm!r} is not registered in this process; load the program that carries it, or call "
                           f"register_adapter({lm!r}, DIRECTORY)")
    if lm not in _bases:
        _bases[lm] = _open(lm)
    elif (again := getattr(_bases[lm], "again", None)) is not None:
        _bases[lm] = again()  # by what the environment says now
    return _bases[lm]


def _behind(lm: dspy.BaseLM) -> Model:
    from stl_programs.models.served import remote, transports

    if not transports.handles(lm):
        return remote.DspyModel(lm)
    ours = isinstance(lm.engine, str) and lm.model.startswith(IN_PROCESS)
    return load(lm.model) if ours else transports.from_lm(lm)


def _open(name: str) -> Model:
    provider, _, rest = name.partition("/")
    if provider == "embedded":
        directory = EMBEDDED / rest
        if not (directory / "config.json").is_file():
            known = ", ".join(f"embedded/{p.parent.name}" for p in sorted(EMBEDDED.glob("*/config.json")))
            raise ModelError(f"there is no embedded model {rest!r}; there is {known or 'none'}")
        return _in_process(name, directory)
    if provider == "local":
        directory = Path(rest)
        if not (directory / "config.json").is_file():
            raise ModelError(f"{name}: {directory} is no model directory: it has no config.json; write local/DIR with "
                             "the path of one")
        return _in_process(name, directory)
    from stl_programs.models.served.transports import open_remote

    return open_remote(name)


def _in_process(name: str, directory: Path) -> Model:
    need(name, *LOCAL, error=ModelError)
    from stl_programs.models.local.in_process import InProcessModel

    return InProcessModel(name, directory)


@dataclass(frozen=True)
class _Adapter:
    """A registered adapter: its folder, the model that serves it, and the format it was trained on where it says so."""

    path: Path
    base: Model
    trained_on: str | None


def register_adapter(name: str, path: str | Path, lm: str | dspy.BaseLM | Model | None = None) -> None:
    """Serve the adapter directory `path` as `name` (BASE@VERSION) from now on.

    Args:
        lm: the model that serves it, where that is an object; by default the one that BASE names.

    Raises AdapterError where the name is taken by other weights or the adapter belongs to another base.
    """
    path = Path(path).resolve()
    if "@" not in name:
        raise AdapterError(f"{name!r} has no version; name an adapter BASE@VERSION")
    if name not in _adapters:
        adapter = _Adapter(path, load(lm or name.rpartition("@")[0]), _trained_on(path))
        adapter.base.load_adapter(name, path)
        _adapters[name] = adapter
    elif adapter_hash(_adapters[name].path) != adapter_hash(path):
        raise AdapterError(f"{name!r} is already the adapter at {_adapters[name].path}; give new weights a new version")


def unregister_adapter(name: str) -> None:
    """Serve the adapter `name` no longer. Raises AdapterError where it is not registered."""
    if name not in _adapters:
        raise AdapterError(f"{name!r} is not registered in this process")
    _adapters.pop(name).base.unload_adapter(name)


def _trained_on(directory: Path) -> str | None:
    """The format that an adapter's provenance names; None without one."""
    provenance = directory / PROVENANCE
    if not provenance.is_file():
        return None
    found = json.loads(provenance.read_text(encoding="utf-8")).get("format")
    if found is not None and found not in FORMATS:
        raise AdapterError(f"the adapter {directory} was trained on the format {found!r}; this installation has "
                           f"{', '.join(FORMATS)}: install the version that made it")
    return found


class _Tuned:
    """A base model answering with one of its adapters, in the format that the adapter was trained on."""

    tuned = True

    def __init__(self, name: str, adapter: _Adapter):
        self.name, self.base = name, adapter.base
        base, trained_on = adapter.base, adapter.trained_on
        own = trained_on is None or trained_on == format_name(base.prompt_format)
        self.prompt_format = base.prompt_format if own else FORMATS[str(trained_on)]()
        self.endpoint, self.prices = base.endpoint, base.prices
        self.check, self.weights, self.load_adapter = base.check, base.weights, base.load_adapter

    def unload_adapter(self, name: str) -> None:
        self.base.unload_adapter(name)

    async def complete(self, request: Request) -> Reply:
        return await self.base.complete(request if request.adapter else request.replace(adapter=self.name))


def is_adapter(name: str | None) -> bool:
    """Whether `name` is that of a registered adapter."""
    return name in _adapters


def adapter_path(name: str) -> Path:
    """The directory behind a registered adapter name."""
    if name not in _adapters:
        raise AdapterError(f"{name!r} is not registered in this process")
    return _adapters[name].path


def export_adapter(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy a saved predictor's adapter into `folder`; the record names it from the folder's parent on."""
    source, target = Path(record["path"]), folder / record["name"].rpartition("@")[2]
    if target.resolve() != source:
        if target.exists() and adapter_hash(target) != adapter_hash(source):
            raise AdapterError(f"{target} holds another adapter; save the program under another name")
        shutil.copytree(source, target, dirs_exist_ok=True)
    return record | {"path": str(target.relative_to(folder.parent))}


def adapter_record(name: str) -> dict[str, Any]:
    """What a saved predictor says of its adapter: its folder, and the hashes that it is verified by."""
    path = adapter_path(name)
    provenance = json.loads((path / PROVENANCE).read_text(encoding="utf-8"))
    return {"name": name, "path": str(path), "sha256": adapter_hash(path), "base_sha256": provenance["base_sha256"]}


def restore_adapter(record: dict[str, Any], lm: Any = None) -> None:
    """Verify the adapter of a saved predictor, and serve it by `lm` where that is an object. Raises AdapterError."""
    path = Path(record["path"])
    if not path.is_dir():
        raise AdapterError(f"the program's adapter {path} is gone; put the folder back beside the program")
    if (found := adapter_hash(path)) != record["sha256"]:
        raise AdapterError(f"the adapter {path} was changed: its hash is {found[:12]}, the program names "
                           f"{record['sha256'][:12]}")
    register_adapter(record["name"], path, None if isinstance(lm, str) else lm)
