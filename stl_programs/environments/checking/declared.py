"""What an environment says of itself: its attributes, signatures, scales, judges and tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dspy

from stl_programs.environments.base import Environment
from stl_programs.environments.checking.report import Abandoned, Report, shown
from stl_programs.errors import StlError
from stl_programs.records import Task

OUTPUTS: dict[str, list[set[str]]] = {
    "policy_signature": [{"actions"}, {"action"}], "value_signature": [{"rationale", "score"}],
    "lookahead_signature": [{"best_action", "next_state", "rationale", "score"}]}
"""What a signature has to put out, or one of several."""
GIVEN = {"policy_signature": {"not_allowed", "count"}}
"""Inputs that the module gives which asks, not the world."""


def check_declared(env: Environment, report: Report) -> bool:
    """Whether the environment says enough of itself to be played."""
    for name, right, example in (("name", lambda it: isinstance(it, str) and it, '"shop"'),
                                 ("max_depth", lambda it: isinstance(it, int) and it >= 1, "10"),
                                 ("scale", _is_scale, "NumberScale(1.0, 10.0)"),
                                 *((name, _is_signature, "a dspy.Signature") for name in OUTPUTS)):
        if not hasattr(env, name):
            report.say(name, f"there is no `{name}`", f"write `{name} = {example}` in the class")
        elif not right(getattr(env, name)):
            report.say(name, f"`{name}` is {shown(getattr(env, name))}", f"it has to be like {example}")
    if report.findings:
        return False
    for name in OUTPUTS:
        _check_outputs(name, name, getattr(env, name), report)
    _check_scale("scale", env.scale, report)
    for page, judge in env.judges.items():
        _check_outputs(f"judges[{page!r}].signature", "value_signature", judge.signature, report)
        if judge.lookahead is not None:
            _check_outputs(f"judges[{page!r}].lookahead", "lookahead_signature", judge.lookahead, report)
        if judge.scale is not None:
            _check_scale(f"judges[{page!r}].scale", judge.scale, report)
    return True


def _is_signature(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, dspy.Signature)


def _is_scale(found: Any) -> bool:
    return all(hasattr(found, name) for name in ("parse", "render", "top", "bottom"))


def _check_outputs(name: str, role: str, signature: type[dspy.Signature], report: Report) -> None:
    outputs, wanted = set(signature.output_fields), OUTPUTS[role]
    if not any(one <= outputs for one in wanted):
        missing = " or ".join(", ".join(sorted(one - outputs)) for one in wanted)
        report.say(f"{name} outputs", f"{name} ({signature.__name__}) has no output {missing}",
                   f"add it, as {'actions: list[str]' if role == 'policy_signature' else 'a'} dspy.OutputField()")


def _check_scale(name: str, scale: Any, report: Report) -> None:
    cure = "make it a LabelScale or a NumberScale, or parse what render gives"
    for bound in (scale.bottom, scale.top):
        text = scale.render(bound)
        if (parsed := scale.parse(text)) is None or abs(parsed - bound) > 0.01 * (scale.top - scale.bottom):
            report.say(f"{name} parse", f"{name} renders {bound:g} as {text!r} and parses that as {parsed}", cure)
    if scale.parse("this is no score") is not None:
        report.say(f"{name} parse", f"{name} parses 'this is no score' as {scale.parse('this is no score')}",
                   "give None for what is no score, so that it counts as missing")


def tasks_of(env: Environment, given: Sequence[Any] | None, report: Report) -> list[Task]:
    """The tasks that are played; none where there are none, with a finding."""
    try:
        found = [report.ask("as_task", env.as_task, one) for one in given] if given is not None else env.tasks("train")
    except StlError as error:
        report.say("no tasks", f"tasks('train') raised {type(error).__name__}: {error}",
                   "pass check_environment(env, tasks=[...]), or write tasks(split)")
        return []
    except Abandoned:
        return []
    except Exception as error:
        report.raised("tasks", error)
        return []
    if not found:
        report.say("no tasks", "there is no task to play", "pass check_environment(env, tasks=[...])")
    try:
        for task in found:
            report.expect("tasks('train')" if given is None else "as_task", task, Task, "return Task(id, text)")
    except Abandoned:
        return []
    ids = Counter(task.id for task in found)
    twice = [id for id, count in ids.items() if count > 1]
    if twice and given is None:
        report.say("task ids", f"the task id {twice[0]!r} is there {ids[twice[0]]} times in 'train'",
                   "give every task an id of its own")
    return found


def check_task(env: Environment, task: Task, report: Report) -> bool:
    """A task has to be found again by its text, and to be JSON. Whether it can be played."""
    try:
        json.dumps(dict(task.fields))
    except (TypeError, ValueError) as error:
        report.say("task fields", f"the fields of task {task.id!r} are no JSON ({error})", "keep them JSON")
    if task.fields:  # given beside the text, and so not in it
        return True
    try:
        again = report.expect("task", report.ask("task", env.task, task.text), Task, "return Task(id, text)")
    except Abandoned:
        return False
    if again != task:
        report.say("task round trip", f"task({shown(task.text)}) gives the id {again.id!r} and the text "
                   f"{shown(again.text)}, and not those of the task that has this text ({task.id!r})",
                   "task(task.text) must give the same task: normalise the text before the Task is made")
    return True
