"""The programs of the Game-of-24 experiment: what is searched, judged and tuned, by settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.game24.settings import Settings
from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.data.lookahead import Closed, LookaheadExample
from optimizers.data.rows import Filter
from optimizers.loop import shuffled
from stl_programs import BeamSearch, GameOf24, LegalMoves, Oracle, Policy, Uniform, Value
from stl_programs.environments.game24.world import calculator_check, format_numbers, reachable
from stl_programs.records import Task


def environment(settings: Settings) -> GameOf24:
    return GameOf24(settings.csv)


def search(settings: Settings, env: GameOf24, value: Any, beam: int, policy: str | None = None) -> BeamSearch:
    """The program of a row; `policy` in place of the settings' is the value model, asked in its format."""
    name, form = (policy, settings.value_format) if policy else (settings.policy, settings.policy_format)
    proposer = LegalMoves() if name == "legal" else Policy(
        env.policy_signature, name, count=12, samples=4, max_tokens=settings.max_tokens, format=form)
    return BeamSearch(env, proposer, value, width=beam)


def base_value(settings: Settings, env: GameOf24, samples: int | None = None) -> Value:
    return Value(env.value_signature, settings.value, samples=samples or settings.samples,
                 aggregate=settings.aggregate, max_tokens=settings.max_tokens, format=settings.value_format)


def untrained_rows(settings: Settings, env: GameOf24) -> list[tuple[str, Any]]:
    """The rows that a tuned value is held against."""
    return [("uniform", Uniform()), ("oracle", Oracle()), ("V0", base_value(settings, env)),
            ("V0, 8 samples", base_value(settings, env, samples=8))]


def train_tasks(settings: Settings, env: GameOf24, seed: int) -> list[Task]:
    """The training puzzles of one STL seed, in order."""
    return shuffled(env.tasks("train"), seed)[:settings.iterations * settings.tasks]


def filters(settings: Settings) -> dict[str, Filter]:
    """The task-specific filters of Algorithm 1, by name."""
    def calculator(example: LookaheadExample, score: str) -> str | None:
        head = "" if example.terminal else f"{example.action} -> {example.next_state} . "
        return calculator_check(example.state, head + example.rationale, score)

    return {"calculator": calculator} if settings.filter == "calculator" else {}


def held_back(env: GameOf24, smallest: int) -> Closed:
    """A strict split: every state of at least `smallest` numbers that some test puzzle can reach."""
    states = {format_numbers(numbers) for numbers in reachable([task.text for task in env.tasks("test")], smallest)}
    return lambda state: state.text in states


def optimizer(settings: Settings, env: GameOf24, run_dir: Path, seed: int, callback: Any = None) -> SelfTaughtLookahead:
    return SelfTaughtLookahead(
        iterations=settings.iterations, tasks_per_iteration=settings.tasks, run_dir=run_dir,
        rollout_aggregate=settings.rollout_aggregate, rollout_samples=settings.rollout_samples, expand=settings.expand,
        variant=settings.variant, start=settings.start,
        others_per_top="all" if settings.others_per_top is None else settings.others_per_top,
        filters=filters(settings), closed=held_back(env, settings.strict) if settings.strict else None,
        weights=settings.weights, in_flight=settings.in_flight, concurrency=settings.concurrency, seed=seed,
        callback=callback, lora=LoraSettings(
            learning_rate=settings.learning_rate, epochs=settings.epochs, batch_size=settings.batch_size,
            loss=settings.loss, max_length=2048))
