"""The files of an adapter, parsed before anything loads them: an allow-list of what a LoRA of this project may say."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from stl_programs.errors import AdapterError
from stl_programs.models.artifacts import CONFIG, LIMITS, PROVENANCE, WEIGHT_BYTES, WEIGHTS, adapter_hash
from stl_programs.models.versions import version_of
from stl_programs.outside import Strict, chunks_of, parse_json, parsed, read_json

HEADER_BYTES = 2**24
"""Most bytes of the description at the beginning of a safetensors file."""
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The types of weights that are loaded."""


def _named(name: str) -> str:
    version_of(name)
    return name


def _unused(value: Any) -> None:
    if value not in (None, False, {}, []):
        raise ValueError("adapters with it are not served; leave it out")


Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]
"""The plain name of a module: PEFT would read others as regular expressions."""
Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[float, Field(gt=0, le=65536)]
Layer = Annotated[int, Field(ge=0, le=10_000)]
Hash = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[0-9a-f]+$")]
Name = Annotated[str, StringConstraints(max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_named)]
Place = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
Inert = Annotated[Any, AfterValidator(_unused)]
"""What would load, replace or compute something else: only not used."""


class AdapterRecord(Strict):
    """What a saved predictor says of its adapter. `sha256`: of its weights and configuration."""

    name: Name
    path: Place
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    base_sha256: Hash


class Provenance(BaseModel):
    """What is read of a provenance.json; whatever else it says is for people."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    base_sha256: Hash
    format: Annotated[str, StringConstraints(max_length=200)] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class LoraConfig(Strict):
    """An adapter_config.json: what is handed to PEFT, and what PEFT 0.21 writes beside it where it is not used."""

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = None
    r: Rank
    lora_alpha: Alpha
    target_modules: Annotated[list[Module], Field(min_length=1, max_length=10_000)]
    lora_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    init_lora_weights: bool = True
    rank_pattern: Annotated[dict[Module, Rank], Field(max_length=10_000, default_factory=dict)]
    alpha_pattern: Annotated[dict[Module, Alpha], Field(max_length=10_000, default_factory=dict)]
    exclude_modules: list[Module] | None = None
    layers_to_transform: Annotated[list[Layer], Field(max_length=10_000)] | Layer | None = None

    # About the file: read by nobody

    auto_mapping: None = None
    base_model_name_or_path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    inference_mode: bool = False
    peft_version: Annotated[str, StringConstraints(max_length=100)] | None = None
    revision: Annotated[str, StringConstraints(max_length=200)] | None = None

    # Not used

    bias: Literal["none"] = "none"
    megatron_core: Literal["megatron.core"] | None = None
    qalora_group_size: int | None = None
    alora_invocation_tokens: Inert = None
    arrow_config: Inert = None
    corda_config: Inert = None
    ensure_weight_tying: Inert = None
    eva_config: Inert = None
    kasa_config: Inert = None
    layer_replication: Inert = None
    layers_pattern: Inert = None
    loftq_config: Inert = None
    lora_bias: Inert = None
    lora_ga_config: Inert = None
    megatron_config: Inert = None
    modules_to_save: Inert = None
    monteclora_config: Inert = None
    runtime_config: Inert = None
    target_parameters: Inert = None
    trainable_token_indices: Inert = None
    use_bdlora: Inert = None
    use_dora: Inert = None
    use_qalora: Inert = None
    velora_config: Inert = None

    def for_peft(self) -> dict[str, Any]:
        """The arguments of peft.LoraConfig: nothing but numbers, flags and plain names."""
        names = ("task_type", "r", "lora_alpha", "target_modules", "lora_dropout", "fan_in_fan_out", "use_rslora",
                 "init_lora_weights", "rank_pattern", "alpha_pattern", "exclude_modules", "layers_to_transform")
        return self.model_dump(include=set(names)) | {"inference_mode": True}


class Tensor(Strict):
    """One tensor in the header of a safetensors file."""

    dtype: Literal["F64", "F32", "F16", "BF16"]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**40)]], Field(max_length=8)]
    data_offsets: Annotated[list[Annotated[int, Field(ge=0, le=WEIGHT_BYTES)]], Field(min_length=2, max_length=2)]


def read_provenance(directory: Path) -> Provenance:
    """What an adapter's folder says of its training. Raises AdapterError where it says nothing, or something else."""
    file = directory / PROVENANCE
    if not file.is_file() or file.is_symlink():
        raise AdapterError(f"{directory} is no adapter of this project: it has no {PROVENANCE}; train it again")
    found = read_json(file, LIMITS[PROVENANCE], "the provenance of an adapter", AdapterError)
    return parsed(Provenance, found, f"{file} is not the provenance of an adapter", AdapterError)


def read_config(directory: Path) -> LoraConfig:
    """The configuration of an adapter. Raises AdapterError for anything that is not on the list of what it may say."""
    file = directory / CONFIG
    found = read_json(file, LIMITS[CONFIG], "the configuration of a LoRA", AdapterError)
    return parsed(LoraConfig, found, f"{file} is not the configuration of a LoRA that is served", AdapterError)


def check_adapter(directory: Path, sha256: str | None = None) -> str:
    """The hash of an adapter whose files all say what they may.

    Args:
        sha256: what the hash must be.

    Raises AdapterError, before anything is loaded.
    """
    found = adapter_hash(directory)
    if sha256 is not None and found != sha256:
        raise AdapterError(f"the adapter {directory} was changed: its hash is {found[:12]}, the program names "
                           f"{sha256[:12]}; put back the one that was saved")
    read_config(directory)
    check_weights(directory / WEIGHTS)
    return found


def check_weights(file: Path) -> None:
    """Raises AdapterError unless `file` begins as a safetensors file of floats does, and is as long as it says."""
    size = file.stat().st_size
    head = b""
    for chunk in chunks_of(file, WEIGHT_BYTES, "the weights of an adapter", AdapterError):
        head += chunk
        length = int.from_bytes(head[:8], "little")
        if len(head) >= min(8 + length, 8 + HEADER_BYTES):
            break
    if size < 8 or not 2 <= length <= min(HEADER_BYTES, size - 8):
        raise AdapterError(f"{file} is no safetensors file: it has {size:,} bytes and names a header of "
                           f"{int.from_bytes(head[:8], 'little'):,}; copy it again")
    label = f"{file} is no safetensors file"
    header = parse_json(_text(head[8:8 + length], label), label, AdapterError)
    _check_tensors(header, size - 8 - length, label)


def _text(head: bytes, label: str) -> str:
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError:
        raise AdapterError(f"{label}: its header is no UTF-8; copy it again") from None


def _check_tensors(header: Any, size: int, label: str) -> None:
    rows = {name: row for name, row in header.items() if name != "__metadata__"} if isinstance(header, Mapping) else {}
    if not rows:
        raise AdapterError(f"{label}: its header names no tensor; copy it again")
    for name, row in rows.items():
        tensor = parsed(Tensor, row, f"{label}: {name[:200]!r}", AdapterError)
        begin, end = tensor.data_offsets
        if end - begin != prod(tensor.shape) * BYTES_OF[tensor.dtype] or end > size:
            raise AdapterError(f"{label}: {name[:200]!r} lies from {begin:,} to {end:,} of {size:,} bytes, which is "
                               f"not its shape {tensor.shape}; copy it again")
