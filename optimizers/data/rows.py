"""From lookahead examples to training rows, with a manifest of what was kept, what was dropped, and why."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dspy

from optimizers.data.lookahead import LookaheadExample
from signatures import Scale, Variant, lookahead_variant, signature_version
from stl_programs.models.formats import format_name

Filter = Callable[[LookaheadExample, str], str | None]
"""(example, score word) -> why the example is dropped, or None to keep it."""


@dataclass
class Dataset:
    """Rows for one training, in the format that serving uses.

    `rows`: {"prompt": messages, "completion": messages}. `manifest`: counts, hashes and settings, JSON-ready.
    """

    examples: list[LookaheadExample]
    rows: list[dict[str, Any]]
    validation_rows: list[dict[str, Any]]
    manifest: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("train.jsonl", self.rows), ("validation.jsonl", self.validation_rows),
                           ("examples.jsonl", [asdict(e) for e in self.examples])):
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / "manifest.json").write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")


def load_examples(folder: Path) -> list[LookaheadExample]:
    """The examples of a saved Dataset."""
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return [LookaheadExample(**json.loads(line)) for line in lines]


def build_dataset(
    examples: Iterable[LookaheadExample],
    signature: type[dspy.Signature],
    format_: dspy.Adapter,
    scale: Scale,
    *,
    variant: Variant = "lv+tr+r",
    earlier: Iterable[LookaheadExample] = (),
    filters: dict[str, Filter] | None = None,
    others_per_top: float | None = None,
    validation_share: float = 0.05,
    seed: int = 0,
    dropped: Counter[str] | None = None,
) -> Dataset:
    """Filter, merge, balance and render.

    Args:
        earlier: examples of earlier iterations; the latest label of a state wins (appendix F.4).
        filters: named predicates besides "malformed", which is always on: what the format cannot say and read back.
        others_per_top: at most this many rows below the top score for each row at it; None keeps all. Terminal states
            are few and all kept.
        validation_share: share of *tasks* whose rows are held out to watch the loss.

    The manifest names every dropped row's reason. Raises ValueError when no row is left.
    """
    dropped = Counter(dropped or {})
    signature = lookahead_variant(signature, variant)
    merged: dict[str, LookaheadExample] = {}
    everything = [*earlier, *examples]
    for example in reversed(everything):
        if example.key in merged:
            dropped["a newer label of the same state"] += 1
        elif reason := _reason(example, scale, signature, format_, filters or {}):
            dropped[reason] += 1
        else:
            merged[example.key] = example
    kept = _balance(list(merged.values())[::-1], scale, others_per_top, dropped, seed)
    if not kept:
        raise ValueError(f"no training row is left of {len(everything)} examples: "
                         f"{dict(dropped) or 'no state was expanded'}; look at the rollouts or loosen the filters")
    held_out = _held_out_tasks(kept, validation_share, seed)
    rows: list[dict[str, Any]] = []
    validation: list[dict[str, Any]] = []
    for example in kept:
        (validation if example.task in held_out else rows).append(_row(example, scale, signature, format_))
    manifest = {
        "rows": len(rows), "validation_rows": len(validation), "examples": len(everything), "dropped": dict(dropped),
        "labels": dict(Counter(scale.render(e.target) for e in kept)),
        "depths": {str(d): n for d, n in sorted(Counter(e.depth for e in kept).items())},
        "tasks": len({e.task for e in kept}), "variant": variant, "signature": signature_version(signature),
        "format": format_name(format_), "sha256": _hash(rows)}
    return Dataset(kept, rows, validation, manifest)


def _reason(example: LookaheadExample, scale: Scale, signature: type[dspy.Signature], format_: dspy.Adapter,
            filters: dict[str, Filter]) -> str | None:
    score = scale.render(example.target)
    wanted = _outputs(example, score, signature)
    try:
        read_back = format_.parse(signature, format_.format_assistant_message_content(signature, wanted))
    except dspy.utils.exceptions.AdapterParseError:
        return "malformed"
    if read_back != wanted:
        return "malformed"
    for name, filter_ in filters.items():
        if why := filter_(example, score):
            return f"{name}: {why}"
    return None


def _outputs(example: LookaheadExample, score: str, signature: type[dspy.Signature]) -> dict[str, str]:
    fields = {"best_action": example.action, "next_state": example.next_state, "rationale": example.rationale,
              "score": score}
    return {name: fields[name] for name in signature.output_fields}


def _row(example: LookaheadExample, scale: Scale, signature: type[dspy.Signature],
         format_: dspy.Adapter) -> dict[str, Any]:
    fields = {"task": example.task, "trajectory": example.trajectory, "state": example.state}
    inputs = {name: fields[name] for name in signature.input_fields}
    outputs = _outputs(example, scale.render(example.target), signature)
    answer = format_.format_assistant_message_content(signature, outputs)
    return {"prompt": format_.format(signature, [], inputs), "completion": [{"role": "assistant", "content": answer}]}


def _balance(examples: list[LookaheadExample], scale: Scale, others_per_top: float | None, dropped: Counter[str],
             seed: int) -> list[LookaheadExample]:
    if others_per_top is None:
        return examples
    top = scale.render(scale.top)
    others = [e for e in examples if not e.terminal and scale.render(e.target) != top]
    room = round(others_per_top * sum(scale.render(e.target) == top for e in examples))
    if len(others) <= room:
        return examples
    chosen = {e.key for e in random.Random(seed).sample(others, room)}
    dropped[f"balance: more than {others_per_top:g} others per {top} row"] += len(others) - room
    left_out = {e.key for e in others} - chosen
    return [e for e in examples if e.key not in left_out]


def _held_out_tasks(examples: list[LookaheadExample], share: float, seed: int) -> set[str]:
    tasks = sorted({e.task for e in examples})
    return set(random.Random(seed).sample(tasks, int(share * len(tasks))))


def _hash(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
