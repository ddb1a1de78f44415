"""Saved files, damaged in every way that comes to mind: one clear line each time, and nothing outside the folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarks.damage import linked, spoilt, swapped
from experiments.benchmarks.face import Row, at_most, main
from experiments.benchmarks.hot_load import random_adapter
from experiments.kit.tracking import read_notes
from signatures import LabelScale, lookahead_variant
from stl_programs import MCTS, BeamSearch, Budget, GameOf24, LegalMoves, PerDepth, Policy, SearchProgram, Value, models
from stl_programs.errors import StlError
from stl_programs.models.artifacts import CONFIG, PROVENANCE, WEIGHTS, adapter_hash
from stl_programs.models.brought import brought
from stl_programs.models.prices import training_price

BASE, VERSION = "embedded/game24", "value-v1-faults"
COUNTS = ("mutations", "refused", "accepted", "raw exceptions", "errors of several lines", "writes outside",
          "loads of another hash")
MUTATIONS = 10_000
PRICES = {"hosted_vllm/llama-8b": {"prompt": 0.05, "completion": 0.08, "cached_prompt": 0.01, "open": True},
          "openai/mine": {"open": False}, "training_per_hour": 2.5}
NOTES = {"store": "sqlite:///mlflow.db", "parent": "1" * 16, "children": {"1": "2" * 16}}
BROUGHT = {"prompt_format": "compact", "training": {"lora": {"rank": 8}}}


class Serving:
    """The embedded model, to which adapters are given that may have been damaged.

    Those that lie as they were saved are not read anew each time; every other one is, and the hash of each is compared
    with the program's.
    """

    def __init__(self) -> None:
        self.base, self.name = models.load(BASE), BASE
        self.known: dict[str, bytes] = {}
        self.expected, self.wrong = "", 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def load_adapter(self, name: str, path: Path) -> None:
        self.wrong += adapter_hash(path) != self.expected
        if any((path / file).read_bytes() != data for file, data in self.known.items()):
            self.base.load_adapter(name, path)
            self.base.unload_adapter(name)

    def unload_adapter(self, name: str) -> None:
        """Nothing of it is kept."""


@dataclass(frozen=True)
class Target:
    """A file that is damaged, and what reads it."""

    path: Path
    read: Callable[[], object]


def saved(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Damage what a program, its adapter and the files beside them say `count` times, and read it each time.

    Args:
        folder: an empty one. The files lie in `folder`/inside; nothing beside that may change.

    Returns how often each of COUNTS was; all but the first three have to be 0.
    """
    rng, serving, inside = random.Random(seed), Serving(), folder / "inside"
    targets = _written(serving, folder)
    for target in targets:
        target.read()
        _unregister()
    whole, beside = _content(inside), _beside(folder)
    found = Counter(dict.fromkeys(COUNTS, 0))
    for _ in range(count):
        target = rng.choice(targets)
        _damage(rng, target.path, inside, folder)
        serving.expected = _named_hash(inside)
        found.update(["mutations", *_outcomes(target)])
        _unregister()
        if _beside(folder) != beside:
            found["writes outside"] += 1
            beside = _beside(folder)
        _put_back(inside, whole)
    return {name: found[name] for name in COUNTS} | {"loads of another hash": serving.wrong}


def _outcomes(target: Target) -> Iterator[str]:
    try:
        target.read()
    except StlError as error:
        yield "refused"
        if "\n" in str(error):
            yield "errors of several lines"
    except Exception as error:  # what this looks for
        yield "raw exceptions"
        print(f"{target.path.name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
    else:
        yield "accepted"


def _unregister() -> None:
    for name in models.registered_adapters():
        models.unregister_adapter(name)


# The files

def _written(serving: Serving, folder: Path) -> list[Target]:
    """A program with an adapter, one without, and what else is read beside them."""
    inside, outside, env = folder / "inside", folder / "outside", GameOf24()
    inside.mkdir(parents=True)
    random_adapter(models.EMBEDDED / "game24", outside, 1)
    shutil.copytree(outside, inside / "trained")
    serving.known = {name: (outside / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    serving.expected = adapter_hash(outside)

    def tuned() -> SearchProgram:
        return BeamSearch(env, LegalMoves(), Value(env.value_signature, serving, samples=1), width=2)  # type: ignore[arg-type]

    def plain() -> SearchProgram:
        return MCTS(env, Policy(env.policy_signature, "openai/x"), Value(env.value_signature, "openai/x"))

    program, name = tuned(), f"{BASE}@{VERSION}"
    models.register_adapter(name, inside / "trained", serving)  # type: ignore[arg-type]
    program.value.predict.signature = lookahead_variant(env.lookahead_signature, "lv+tr+r")
    program.value.predict.adapter = name
    program.save(inside / "tuned.json")
    models.unregister_adapter(name)
    other, judge = plain(), Value(env.value_signature, "openai/y", samples=5, budget=Budget(calls=9), scale=LabelScale(
        (("good", 1.0), ("bad", 0.0))))
    judge.predict.demos = [{"state": "4 6", "rationale": "24", "score": "sure"}]
    other.value = PerDepth([judge, Value(env.value_signature, "openai/z", temperature=0.5)])
    other.budget = Budget(tokens=99)
    other.save(inside / "plain.json")
    shutil.rmtree(inside / "trained")
    for file, rows in (("prices.json", PRICES), ("mlflow.json", NOTES), ("stl_programs.json", BROUGHT)):
        (inside / file).write_text(json.dumps(rows))
    (inside / "24.csv").write_text("Rank,Puzzles\n" + "".join(
        f"{i},{task.text}\n" for i, task in enumerate(env.tasks("train") + env.tasks("hard") + env.tasks("test")
                                                      + env.tasks("validation"))))
    adapter = inside / "tuned-adapters" / VERSION

    def load_tuned() -> None:
        _load_and_save(tuned(), inside / "tuned.json")

    def load_plain() -> None:
        _load_and_save(plain(), inside / "plain.json")

    def prices() -> None:
        with _environment("STL_PRICES", str(inside / "prices.json")):
            training_price()

    return [*[Target(inside / "tuned.json", load_tuned)] * 3, *[Target(inside / "plain.json", load_plain)] * 3,
            *(Target(adapter / file, load_tuned) for file in (CONFIG, CONFIG, WEIGHTS, PROVENANCE)),
            Target(inside / "prices.json", prices),
            Target(inside / "mlflow.json", lambda: read_notes(inside / "mlflow.json")),
            Target(inside / "stl_programs.json", lambda: brought(inside)),
            Target(inside / "24.csv", lambda: GameOf24(inside / "24.csv").tasks("test"))]


def _load_and_save(program: SearchProgram, path: Path) -> None:
    program.load(path)
    program.save(path.with_name("again.json"))


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    training_price.__globals__["_read"].cache_clear()
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


# Damage

def _damage(rng: random.Random, path: Path, inside: Path, folder: Path) -> None:
    ours = path.parent != inside
    if ours and rng.random() < 0.15:
        linked(rng, path, folder / "outside")
        return
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.75:
        path.write_text(swapped(rng, data.decode()), encoding="utf-8", errors="surrogatepass")
    else:
        path.write_bytes(spoilt(rng, data))
    if ours and rng.random() < 0.7:  # an attacker who can write the adapter can write its hash
        _sign(inside / "tuned.json", path.parent)


def _sign(program: Path, adapter: Path) -> None:
    state = json.loads(program.read_text())
    with suppress(StlError):
        state["parts"]["value"]["parts"]["predict"]["adapter"]["sha256"] = adapter_hash(adapter)
    program.write_text(json.dumps(state))


def _named_hash(inside: Path) -> str:
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        state = json.loads((inside / "tuned.json").read_text())
        return str(state["parts"]["value"]["parts"]["predict"]["adapter"]["sha256"])
    return ""


def _content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}


def _beside(folder: Path) -> list[tuple[str, int, int]]:
    """Everything in `folder` but what is inside, and when it was written."""
    found = []
    for top in folder.iterdir():
        for path in [top, *([] if top.name == "inside" else top.rglob("*"))]:
            about = path.lstat()
            found.append((str(path), about.st_size, 0 if path.name == "inside" else about.st_mtime_ns))
    return sorted(row[:1] + ((0,) if row[0].endswith("inside") else row[1:2]) + row[2:] for row in found)


def _put_back(inside: Path, whole: dict[Path, bytes]) -> None:
    adapters = {path.parent for path in whole if path.parent != inside}
    for folder in adapters:
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(exist_ok=True)
    for path in sorted(inside.rglob("*"), reverse=True):
        if path.is_symlink() or (path not in whole and not path.is_dir()) or path.is_fifo():
            path.unlink()
        elif path.is_dir() and path not in adapters and path not in {folder.parent for folder in adapters}:
            shutil.rmtree(path)
    for path, data in whole.items():
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)


def faults() -> list[Row]:
    """10,000 damaged files."""
    with tempfile.TemporaryDirectory() as folder:
        found = saved(MUTATIONS, 0, Path(folder) / "saved")
    return [at_most(name, found[name], 0, "", f"of {found['mutations']:,} damaged files") for name in COUNTS[3:]]


if __name__ == "__main__":
    sys.exit(main({"faults": faults}))
