"""HotpotQA: questions that need two articles; search, look up, finish (paper, appendix E)."""

from __future__ import annotations

import dspy

from signatures.scales import NumberScale

SCALE = NumberScale(1.0, 10.0)
"""Prompts name five points of it: 1, 3, 5, 7 and 10."""
LAST_STEP = "This is the last step: only finish[answer] is possible."


class ProposeLookups(dspy.Signature):
    """Answer a question from an encyclopedia: say which actions bring the answer closest, and why, reason first.

    search[title] opens the article of that title and shows its beginning, or names similar titles; lookup[word] shows
    the next sentence of the open article that has the word; finish[answer] answers, in as few words as possible. Keep
    titles and words short. Word nothing as an action of the not-allowed list does.
    """

    task: str = dspy.InputField(desc="the question")
    observations: list[str] = dspy.InputField(desc="what was seen so far, oldest first")
    trajectory: str = dspy.InputField(desc="the actions so far")
    state: str = dspy.InputField(desc="what is seen now")
    steps_left: str = dspy.InputField(desc="how many actions are left")
    not_allowed: list[str] = dspy.InputField(desc="actions that were already proposed")
    count: int = dspy.InputField(desc="how many distinct actions are wanted, best first")
    rationale: str = dspy.OutputField(desc="what is known, and what is missing, in at most 60 words")
    actions: list[str] = dspy.OutputField(desc="like search[Osprey Bay], lookup[river] or finish[Ember]")


class EstimateLookups(dspy.Signature):
    """Judge how far the last action and what it showed lead to the right answer of the question.

    Say first, in at most 100 words, which part of the question is settled and which is not; a given answer is held
    against what was seen. Then score: 1: it leads nowhere, or the answer is wrong; 3: hardly of use; 5: of some use;
    7: most of what is needed is known, or the answer is probably right; 10: all of it is known, or the answer is right.
    """

    task: str = dspy.InputField(desc="the question")
    observations: list[str] = dspy.InputField(desc="what was seen before, oldest first")
    trajectory: str = dspy.InputField(desc="the actions so far")
    last_action: str = dspy.InputField()
    state: str = dspy.InputField(desc="what the last action showed")
    possible_next_actions: list[str] = dspy.InputField(desc="some of what can be done next")
    rationale: str = dspy.OutputField(desc="what is settled and what is missing")
    score: str = dspy.OutputField(desc="one of 1, 3, 5, 7, 10")


class LookaheadLookups(dspy.Signature):
    """Judge where the search for an answer stands by looking one action ahead.

    Name the best next action, what it will show, and why that is worth its score. Once the question is answered, action
    and observation are "none".
    """

    task: str = dspy.InputField(desc="the question")
    observations: list[str] = dspy.InputField(desc="what was seen before, oldest first")
    trajectory: str = dspy.InputField(desc="the actions so far")
    last_action: str = dspy.InputField()
    state: str = dspy.InputField(desc="what the last action showed")
    possible_next_actions: list[str] = dspy.InputField(desc="some of what can be done next")
    best_action: str = dspy.OutputField()
    next_state: str = dspy.OutputField(desc="what the best action will show")
    rationale: str = dspy.OutputField(desc="why that is worth its score")
    score: str = dspy.OutputField(desc="a number from 1 (hopeless) to 10 (answered)")


class JudgeAnswer(dspy.Signature):
    """Decide whether an answer to a question says the same as the reference answer.

    Spelling, word order, more or less detail and units make no difference as long as the same thing is meant; another
    person, place, number or date does.
    """

    question: str = dspy.InputField()
    reference: str = dspy.InputField(desc="the answer that is known to be right")
    answer: str = dspy.InputField(desc="the answer to judge")
    rationale: str = dspy.OutputField()
    verdict: str = dspy.OutputField(desc="one word: yes or no")


POLICY_EXAMPLES = (
    dspy.Example(task="On which river lies the town where the glazier Odo Tarn was born?", observations=[],
                 trajectory="none", state="(nothing was looked up yet)", steps_left="4 steps are left.", not_allowed=[],
                 count=2, rationale="The town is not known; the article of Odo Tarn names it.",
                 actions=["search[Odo Tarn]", "search[Odo Tarn glazier]"]).with_inputs(
        "task", "observations", "trajectory", "state", "steps_left", "not_allowed", "count"),
    dspy.Example(task="On which river lies the town where the glazier Odo Tarn was born?",
                 observations=["Odo Tarn (born 1871) is a glazier. Odo was born in Veldt."],
                 trajectory="search[Odo Tarn]\nsearch[Veldt]",
                 state="Veldt is a town in Hask. It lies on the river Mull.", steps_left="2 steps are left.",
                 not_allowed=[], count=1, rationale="He was born in Veldt, which lies on the Mull: that answers it.",
                 actions=["finish[Mull]"]).with_inputs(
        "task", "observations", "trajectory", "state", "steps_left", "not_allowed", "count"))
"""For the policy, of an encyclopedia that nobody has: `policy.predict.demos = list(POLICY_EXAMPLES)`."""

VALUE_EXAMPLES = (
    dspy.Example(task="On which river lies the town where the glazier Odo Tarn was born?",
                 observations=["(nothing was looked up yet)"], trajectory="search[Odo Tarn]",
                 last_action="search[Odo Tarn]", state="Odo Tarn (born 1871) is a glazier. Odo was born in Veldt.",
                 possible_next_actions=["search[Veldt]", "lookup[river]"],
                 rationale="The town is Veldt; its river is missing, and its article will name it.",
                 score="7").with_inputs("task", "observations", "trajectory", "last_action", "state",
                                        "possible_next_actions"),
    dspy.Example(task="On which river lies the town where the glazier Odo Tarn was born?",
                 observations=["(nothing was looked up yet)"], trajectory="search[Mull]", last_action="search[Mull]",
                 state="Could not find Mull. Similar: ['Mull Bridge', 'Hask'].",
                 possible_next_actions=["search[Mull Bridge]", "search[Hask]"],
                 rationale="Nothing about Odo Tarn or a town was found.", score="1").with_inputs(
        "task", "observations", "trajectory", "last_action", "state", "possible_next_actions"))
"""For the value."""
