"""What a trajectory is worth, and whether a search could see it."""

from __future__ import annotations

import math

from stl_programs.environments.base import Environment, sealed_reward
from stl_programs.environments.checking.report import Report, shown
from stl_programs.errors import RewardSealed
from stl_programs.records import State, Task


async def check_score(env: Environment, task: Task, state: State, report: Report) -> None:
    """The reward of an answer: a number in [0, 1], the same twice, and sealed during a search."""
    answer = report.ask("answer", env.answer, task, state)
    score = await report.aask("ascore", env.ascore(task, answer))
    number = isinstance(score, (int, float)) and not isinstance(score, bool)
    if not number or not math.isfinite(score) or not 0 <= score <= 1:
        report.say("score", f"the answer {shown(answer)} scores {score!r}", "give a float from 0 to 1")
        return
    if (again := await report.aask("ascore", env.ascore(task, answer))) != score:
        report.say("score", f"the answer {shown(answer)} scores {score:g}, and then {again:g}",
                   "a score depends on the task and the answer alone")
    if not isinstance(solved := report.ask("solved", env.solved, score), bool):
        report.say("solved", f"solved({score:g}) gives a {type(solved).__name__}", "give True or False")
    with sealed_reward():
        try:
            await env.ascore(task, answer)
        except RewardSealed:
            return
    report.say("sealed", "the score can be read during a reward-free search",
               "write _score, and leave score as it is; an ascore of your own calls sealed-checking score first")
