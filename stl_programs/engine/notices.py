"""What a run says aloud at its end, once: that a model was never understood, or that there was nothing to do."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

from stl_programs.records import TaskResult

NO_CHOICE = "nothing to choose from at the start"
UNJUDGED = "states judged without a score"
"""Notes of a result that are looked at here."""


class NothingUnderstood(UserWarning):
    """A run came to its end, and its answers mean little; the `notes` of its results count what went wrong."""


def warn(results: Sequence[TaskResult]) -> None:
    """One warning for a whole run, where there is anything to say.

    Its text holds no counts, so that Python shows it once where an evaluation calls a program task by task.
    """
    if said := "; ".join(notices(results)):
        warnings.warn(f"{said} (the `notes` of the results count them)", NothingUnderstood, stacklevel=2)


def notices(results: Sequence[TaskResult]) -> Iterator[str]:
    """What there is to say about a run."""
    asked, unread, notes = Counter[str](), Counter[str](), Counter[str]()
    models = dict[str, set[str]]()
    for result in results:
        notes.update(result.notes)
        for role, usage in result.usage.items():
            asked[role] += usage["samples"]
            unread[role] += usage["parse_failures"]
            models.setdefault(role, set()).update(result.usage_by_model.get(role, ()))
    for role, failures in unread.items():
        if failures and failures >= asked[role]:
            yield (f"no reply of the {role}'s model ({', '.join(sorted(models[role]))}) could be read: look at its "
                   "prompt format and at max_tokens")
    judged = sum(result.states_judged for result in results)
    if judged and notes[UNJUDGED] >= judged:
        yield "no state got a score, so states were chosen at random: look at what the value's model writes as a score"
    if notes[NO_CHOICE]:
        yield "some tasks had nothing to choose from at their start, and answer without a step: look at the policy"
