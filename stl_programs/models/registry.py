"""Models by their LiteLLM string, and the adapters that are versions of one.

    embedded/game24             a small model that ships with the package
    local/DIR                   a model directory (config, safetensors, tokenizer with a chat template), in this process
    openai/gpt-4o               anything that LiteLLM knows
    hosted_vllm/NAME            an OpenAI-compatible server at HOSTED_VLLM_API_BASE, or several with commas between them
    embedded/game24@value-v1    a LoRA adapter, by the version that it was registered under

An adapter is a version of a name, never new weights under an old one. An `@` in a name that is not registered belongs
to the model's own name or path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import dspy

from stl_programs.errors import AdapterError, ModelError
from stl_programs.extras import LOCAL, need
from stl_programs.models.adapters import AdapterRecord, check_adapter, read_provenance
from stl_programs.models.artifacts import LIMITS, PROVENANCE, adapter_hash
from stl_programs.models.base import Model, Reply, Request
from stl_programs.models.formats import FORMATS, format_name
from stl_programs.models.versions import VERSION, base_of, forget, note, version_of
from stl_programs.outside import chunks_of, parsed, write_atomically

EMBEDDED = Path(__file__).parent / "embedded"
IN_PROCESS = ("embedded/", "local/")
"""How the strings of models in this process begin."""
_bases: dict[str, Model] = {}
_adapters: dict[str, _Adapter] = {}
_of_objects: WeakKeyDictionary[Any, Model] = WeakKeyDictionary()


def string_of(lm: Any) -> str | None:
    """The model string behind an `lm` argument, as tables and saved programs name it."""
    return lm if lm is None or isinstance(lm, str) else getattr(lm, "model", None) or lm.name


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
    check_registered(lm)
    if lm not in _bases:
        _bases[lm] = _open(lm)
    elif (again := getattr(_bases[lm], "again", None)) is not None:
        _bases[lm] = again()  # by what the environment says now
    return _bases[lm]


def check_registered(name: str) -> None:
    """Raises AdapterError for a name of a model in this process that can only be that of an adapter, and is of none.

    Elsewhere an `@` may belong to a model's own name, which its provider knows.
    """
    base, _, version = name.rpartition("@")
    if name.startswith(IN_PROCESS) and base and VERSION.fullmatch(version) and name not in _adapters and not (
            _directory(name) / "config.json").is_file():
        raise AdapterError(f"{name!r} is not registered in this process; load the program that carries it, or call "
                           f"register_adapter({name!r}, DIRECTORY)")


def _behind(lm: dspy.BaseLM) -> Model:
    from stl_programs.models.served import remote, transports

    if not transports.handles(lm):
        return remote.DspyModel(lm)
    ours = isinstance(lm.engine, str) and lm.model.startswith(IN_PROCESS)
    return load(lm.model) if ours else transports.from_lm(lm)


def _open(name: str) -> Model:
    provider, _, rest = name.partition("/")
    if provider == "embedded":
        directory = _directory(name)
        if not directory.resolve().is_relative_to(EMBEDDED) or not (directory / "config.json").is_file():
            known = ", ".join(f"embedded/{p.parent.name}" for p in sorted(EMBEDDED.glob("*/config.json")))
            raise ModelError(f"there is no embedded model {rest!r}; there is {known or 'none'}")
        return _in_process(name, directory)
    if provider == "local":
        directory = _directory(name)
        if not (directory / "config.json").is_file():
            raise ModelError(f"{name}: {directory} is no model directory: it has no config.json; write local/DIR with "
                             "the path of one")
        return _in_process(name, directory)
    from stl_programs.models.served.transports import open_remote

    return open_remote(name)


def _directory(name: str) -> Path:
    """Where the model of this process called `name` lies."""
    provider, _, rest = name.partition("/")
    return EMBEDDED / rest if provider == "embedded" else Path(rest)


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
    sha256: str


def register_adapter(name: str, path: str | Path, lm: str | dspy.BaseLM | Model | None = None) -> None:
    """Serve the adapter directory `path` as `name` (BASE@VERSION) from now on.

    Args:
        lm: the model that serves it, where that is an object; by default the one that BASE names.

    Raises AdapterError where the name is taken by other weights, the adapter belongs to another base, or its folder
    holds anything but a LoRA's numbers.
    """
    path = Path(path).resolve()
    version_of(name)
    if name not in _adapters:
        base, sha256 = load(lm or base_of(name)), check_adapter(path)
        adapter = _Adapter(path, base, _trained_on(path), sha256)
        adapter.base.load_adapter(name, path)
        _adapters[name] = adapter
        note(name)
    elif _adapters[name].sha256 != adapter_hash(path):
        raise AdapterError(f"{name!r} is already the adapter at {_adapters[name].path}; give new weights a new version")


def unregister_adapter(name: str) -> None:
    """Serve the adapter `name` no longer. Raises AdapterError where it is not registered."""
    if name not in _adapters:
        raise AdapterError(f"{name!r} is not registered in this process")
    forget(name)
    _adapters.pop(name).base.unload_adapter(name)


def _trained_on(directory: Path) -> str | None:
    """The format that an adapter's provenance names; None without one."""
    if not (directory / PROVENANCE).exists():
        return None
    found = read_provenance(directory).format
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


def adapter_path(name: str) -> Path:
    """The directory behind a registered adapter name."""
    if name not in _adapters:
        raise AdapterError(f"{name!r} is not registered in this process")
    return _adapters[name].path


def export_adapter(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy the files of a saved predictor's adapter into `folder`; the record names it from the folder's parent on.

    Raises AdapterError where another adapter lies there, or a link, or the adapter is no longer what was recorded.
    """
    known = parsed(AdapterRecord, record, "the program's adapter", AdapterError)
    source, target = Path(known.path), folder / version_of(known.name)
    if folder.is_symlink() or target.is_symlink():
        raise AdapterError(f"{target} is, or lies in, a symbolic link, and nothing is written through one; save the "
                           "program under another name")
    if target.resolve() != source.resolve():
        if not target.exists():
            _copy(source, target, known.sha256)
        elif adapter_hash(target) != known.sha256:
            raise AdapterError(f"{target} holds another adapter; save the program under another name")
    return record | {"path": target.relative_to(folder.parent).as_posix()}


def _copy(source: Path, target: Path, sha256: str) -> None:
    """The files that an adapter has, into a new folder that appears whole."""
    partial = target.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        partial.mkdir(parents=True)
        for name, limit in LIMITS.items():
            if (source / name).exists():
                write_atomically(partial / name, chunks_of(source / name, limit, "a file of an adapter", AdapterError),
                                 "the adapter", AdapterError)
        check_adapter(partial, sha256)
        os.rename(partial, target)
    except OSError as error:
        raise AdapterError(f"cannot write the adapter {target}: {error.strerror}; look at its folder and the space "
                           "that is left") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial)


def adapter_record(name: str) -> dict[str, Any]:
    """What a saved predictor says of its adapter: its folder, and the hashes that it is verified by."""
    path = adapter_path(name)
    return {"name": name, "path": str(path), "sha256": adapter_hash(path),
            "base_sha256": read_provenance(path).base_sha256}


def restore_adapter(record: AdapterRecord, lm: Any = None) -> None:
    """Verify the adapter of a saved predictor, and serve it by `lm` where that is an object. Raises AdapterError."""
    path = Path(record.path)
    if not path.is_dir():
        raise AdapterError(f"the program's adapter {path} is gone; put the folder back beside the program")
    check_adapter(path, record.sha256)
    if (trained_on := read_provenance(path).base_sha256) != record.base_sha256:
        raise AdapterError(f"the adapter {path} was trained on base {trained_on[:12]}, and the program names "
                           f"{record.base_sha256[:12]}; put back the provenance that was saved")
    register_adapter(record.name, path, None if isinstance(lm, str) else lm)
