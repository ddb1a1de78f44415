"""Journals that were damaged on the disk: what becomes of the replies and results in them."""

from __future__ import annotations

import json
import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from experiments.benchmarks.face import Row, at_most
from experiments.benchmarks.scripts import world_reply
from stl_programs import BeamSearch, LegalMoves, TaskResult, Value, run_sync, run_tasks
from stl_programs.errors import JournalError, StlError
from stl_programs.testing.scripted import ScriptedModel
from stl_programs.testing.tree_world import TreeWorld

ENV = TreeWorld(depth=2, branching=2, transpositions=0.0)
COUNTS = ("mutations", "the same", "named", "refused", "raw exceptions", "undamaged replies not used",
          "changed unnamed")
"""What is counted; the last three have to be 0."""


def _run(journal: Path, seed: int = 0) -> list[TaskResult]:
    model = ScriptedModel("scripted/m", lambda messages, seed: world_reply(messages, "sim", seed))
    model.endpoint = "a server"  # so that what is sent is journaled too
    program = BeamSearch(ENV, LegalMoves(), Value(ENV.value_signature, model, samples=1, max_tokens=60), width=1)
    return run_sync(run_tasks(program, [ENV.task(str(i)) for i in range(2)], seed=seed, journal=journal, retries=0))


def _damage(rng: random.Random, data: bytes, foreign: list[bytes]) -> bytes:
    lines, way = data.splitlines(keepends=True), rng.randrange(8)
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if way == 0:
        found = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    if way == 1:
        return data[:rng.randrange(len(data))]
    if way == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif way == 3:
        lines.insert(at, lines[other])
    elif way == 4:
        lines.insert(max(at, 1), rng.choice(foreign))
    elif way == 5:
        lines.insert(at, rng.choice((b"\n", b"5\n", b"[" * 3000 + b"\n", b"\xff\xfe\n", b'{"reply":"x"}\n', b"null\n")))
    elif way == 6:
        del lines[at]
    else:
        start = rng.randrange(len(data))
        return data[:start] + b"\x00" * min(rng.choice((1, 16, 400)), len(data) - start) + data[start + 400:]
    return b"".join(lines)


def journals(count: int, seed: int = 0) -> dict[str, int]:
    """Damage a journal `count` times, and continue it each time. Returns how often each of COUNTS was."""
    rng, tally = random.Random(seed), Counter(dict.fromkeys(COUNTS, 0))
    with tempfile.TemporaryDirectory() as folder:
        whole, other, path = (Path(folder) / name for name in ("whole.jsonl", "other.jsonl", "damaged.jsonl"))
        wanted = [_outcome(result) for result in _run(whole)]
        _run(other, seed=1)
        data, foreign = whole.read_bytes(), other.read_bytes().splitlines(keepends=True)[1:]
        replies = {json.loads(line)["reply"]: line for line in data.splitlines() if line.startswith(b'{"reply"')}
        for _ in range(count):
            damaged = _damage(rng, data, foreign)
            path.write_bytes(damaged)
            tally.update(["mutations", _continued(path, damaged, wanted, replies, tally)])
    return {name: tally[name] for name in COUNTS}


def _continued(path: Path, damaged: bytes, wanted: list[object], replies: dict[str, bytes], tally: Counter[str]) -> str:
    """What became of it; replies that were asked for again though their line is whole are counted beside."""
    with warnings.catch_warnings(record=True) as named:
        warnings.simplefilter("always")
        try:
            found = [_outcome(result) for result in _run(path)]
        except JournalError:
            return "refused" if path.read_bytes() == damaged else "changed unnamed"
        except Exception as error:
            return "refused" if isinstance(error, StlError) else "raw exceptions"
    held = set(damaged.splitlines())
    asked = [json.loads(line)["reply"] for line in path.read_bytes()[len(damaged) - 400:].splitlines()
             if line.startswith(b'{"reply"') and line not in held]
    tally["undamaged replies not used"] += sum(replies.get(key) in held for key in asked)
    if found == wanted:
        return "the same"
    return "named" if named else "changed unnamed"


def _outcome(result: TaskResult) -> object:
    return result.task, result.answer, result.trajectory, result.error, result.states_judged


def faults(count: int = 10_000) -> list[Row]:
    """Damaged journals: bits, cuts, swaps, doubles, foreign lines, garbage, lines and blocks that are gone."""
    found = journals(count)
    of = f"of {count:,}; {found['the same']:,} the same, {found['named']:,} named, {found['refused']:,} refused"
    return [at_most(f"damaged journals: {name}", found[name], 0, "", of) for name in COUNTS[4:]]
