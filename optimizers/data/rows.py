"""From lookahead examples to training rows, with a manifest of what was kept, what was dropped, and why."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dspy

from optimizers.data.lookahead import LookaheadExample
from signatures import Scale, Variant, lookahead_variant, signature_version
from stl_programs.models.formats import format_name
from stl_programs.outside import write_atomically
from stl_programs.secrets import as_json
from stl_programs.situations import as_input

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
            write_atomically(folder / name, ((as_json(row) + "\n").encode() for row in rows), "the rows")
        write_atomically(folder / "manifest.json", [as_json(self.manifest, indent=1).encode(), b"\n"], "the manifest")


def load_examples(folder: Path) -> list[LookaheadExample]:
    """The examples of a saved Dataset."""
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return [LookaheadExample(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class Lesson:
    """How a state's row is written: the lookahead signature, and the scale of its score; of a judge with an offset, the
    label is what is added to the estimate of the state before."""

    signature: type[dspy.Signature]
    scale: Scale
    offset: bool = False

    def label(self, example: LookaheadExample) -> str:
        """The score in words."""
        base = (example.before or 0.0) if self.offset else 0.0
        return self.scale.render(example.target - base)


def build_dataset(
    examples: Iterable[LookaheadExample],
    signature: type[dspy.Signature],
    format_: dspy.Adapter,
    scale: Scale,
    *,
    variant: Variant = "lv+tr+r",
    pages: Mapping[str, Lesson] | None = None,
    task_free: bool = False,
    earlier: Iterable[LookaheadExample] = (),
    filters: dict[str, Filter] | None = None,
    others_per_top: float | None = None,
    validation_share: float = 0.05,
    seed: int = 0,
    dropped: Counter[str] | None = None,
) -> Dataset:
    """Filter, merge, balance and render: one row per task and state.

    Args:
        pages: how states of the world's own judges are taught; an example of a page that is not there makes no row.
        task_free: values do not depend on the task: one row per state.
        earlier: examples of earlier iterations; the latest label of a state wins (appendix F.4).
        filters: named predicates besides "malformed", which is always on: what the format cannot say and read back.
        others_per_top: at most this many rows below the top score for each row at it; None keeps all. Terminal states
            are few and all kept.
        validation_share: share of *tasks* whose rows are held out to watch the loss.

    The manifest names every dropped row's reason. Raises ValueError when no row is left.
    """
    dropped = Counter(dropped or {})
    lessons: dict[str | None, Lesson] = {None: Lesson(signature, scale)}
    lessons.update((pages or {}).items())
    lessons = {page: replace(lesson, signature=lookahead_variant(lesson.signature, variant))
               for page, lesson in lessons.items()}
    merged: dict[Any, LookaheadExample] = {}
    everything = [*earlier, *examples]
    for example in reversed(everything):
        key = example.key if task_free else (example.task, example.key)
        if key in merged:
            dropped["a newer label of the same state"] += 1
        elif reason := _reason(example, lessons, format_, filters or {}):
            dropped[reason] += 1
        else:
            merged[key] = example
    kept = _balance(list(merged.values())[::-1], lessons, others_per_top, dropped, seed)
    if not kept:
        raise ValueError(f"no training row is left of {len(everything)} examples: "
                         f"{dict(dropped) or 'no state has all its successors judged'}; look at the "
                         "rollouts or loosen the filters")
    held_out = _held_out_tasks(kept, validation_share, seed)
    rows: list[dict[str, Any]] = []
    validation: list[dict[str, Any]] = []
    for example in kept:
        (validation if example.task in held_out else rows).append(_row(example, lessons[example.page], format_))
    manifest = {
        "rows": len(rows), "validation_rows": len(validation), "examples": len(everything), "dropped": dict(dropped),
        "labels": dict(Counter(lessons[e.page].label(e) for e in kept)),
        "depths": {str(d): n for d, n in sorted(Counter(e.depth for e in kept).items())},
        "tasks": len({e.task for e in kept}), "variant": variant,
        "signature": signature_version(lessons[None].signature),
        "format": format_name(format_), "sha256": rows_hash(rows)}
    return Dataset(kept, rows, validation, manifest)


def _reason(example: LookaheadExample, lessons: Mapping[str | None, Lesson], format_: dspy.Adapter,
            filters: dict[str, Filter]) -> str | None:
    """Why an example makes no row; None where it does."""
    lesson = lessons.get(example.page)
    if lesson is None:
        return f"page {example.page!r}: its judge has no lookahead signature"
    if lesson.offset and example.before is None:
        return f"page {example.page!r}: the state before has no estimate to add the offset to"
    if why := _malformed(example, lesson, format_):
        return f"malformed: {why}"
    for name, filter_ in filters.items():
        if why := filter_(example, lesson.label(example)):
            return f"{name}: {why}"
    return None


def _malformed(example: LookaheadExample, lesson: Lesson, format_: dspy.Adapter) -> str | None:
    """Which field the format cannot say and read back, and what about it; white space at its ends is not kept."""
    wanted = _outputs(example, lesson)
    for name, text in wanted.items():
        if not text:
            return f"{name} is empty"
    if _reads_back(wanted, lesson, format_):
        return None
    plain = {name: "x" if name != "score" else text for name, text in wanted.items()}
    for name, text in wanted.items():
        if name != "score" and not _reads_back({**plain, name: text}, lesson, format_):
            return f"{name} contains what the format {format_name(format_)} separates its fields by"
    return f"its fields together are not read back by the format {format_name(format_)}"


def _reads_back(wanted: dict[str, str], lesson: Lesson, format_: dspy.Adapter) -> bool:
    try:
        said = format_.format_assistant_message_content(lesson.signature, wanted)
        found: dict[str, str] = format_.parse(lesson.signature, said)
    except dspy.utils.exceptions.AdapterParseError:
        return False
    return found == wanted


def _outputs(example: LookaheadExample, lesson: Lesson) -> dict[str, str]:
    fields = {"best_action": example.action, "next_state": example.next_state, "rationale": example.rationale,
              "score": lesson.label(example)}
    return {name: "\n".join(fields[name].splitlines()).strip() for name in lesson.signature.output_fields}


def _row(example: LookaheadExample, lesson: Lesson, format_: dspy.Adapter) -> dict[str, Any]:
    known = {"task": example.task, "trajectory": example.trajectory, "state": example.state, **example.inputs}
    inputs = {name: as_input(known[name], field.annotation) for name, field in lesson.signature.input_fields.items()}
    answer = format_.format_assistant_message_content(lesson.signature, _outputs(example, lesson))
    return {"prompt": format_.format(lesson.signature, [], inputs),
            "completion": [{"role": "assistant", "content": answer}]}


def _balance(examples: list[LookaheadExample], lessons: Mapping[str | None, Lesson], others_per_top: float | None,
             dropped: Counter[str], seed: int) -> list[LookaheadExample]:
    if others_per_top is None:
        return examples

    def top(example: LookaheadExample) -> bool:
        lesson = lessons[example.page]
        return lesson.label(example) == lesson.scale.render(lesson.scale.top)

    others = [i for i, e in enumerate(examples) if not e.terminal and not top(e)]
    room = round(others_per_top * sum(top(e) for e in examples))
    if len(others) <= room:
        return examples
    left_out = set(others) - set(random.Random(seed).sample(others, room))
    word = lessons[None].scale.render(lessons[None].scale.top)
    dropped[f"balance: more than {others_per_top:g} others per {word} row"] += len(left_out)
    return [e for i, e in enumerate(examples) if i not in left_out]


def _held_out_tasks(examples: list[LookaheadExample], share: float, seed: int) -> set[str]:
    tasks = sorted({e.task for e in examples})
    return set(random.Random(seed).sample(tasks, int(share * len(tasks))))


def rows_hash(rows: list[dict[str, Any]]) -> str:
    """Names a set of rows."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
