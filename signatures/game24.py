"""Game of 24: the three signatures in the words of the game, and its scale (paper, appendix F.2)."""

from __future__ import annotations

import dspy

from signatures.scales import LabelScale

SCALE = LabelScale((("impossible", 0.001), ("likely", 1.0), ("sure", 20.0)))
"""Tree of Thoughts' labels and their worth; ad hoc, used as labels."""


class ProposeMoves(dspy.Signature):
    """Use numbers and basic arithmetic operations (+ - * /) to obtain 24.

    A move picks two of the remaining numbers and replaces them by one result, written like `4 * 6 = 24`.
    Propose distinct moves, most promising first, and none of the not-allowed list.
    """

    state: str = dspy.InputField(desc="the remaining numbers")
    not_allowed: list[str] = dspy.InputField(desc="moves that were already proposed")
    count: int = dspy.InputField(desc="how many moves are wanted")
    actions: list[str] = dspy.OutputField(desc="moves like `4 * 6 = 24`")


class EstimateNumbers(dspy.Signature):
    """Evaluate if the given numbers can reach 24 using each of them exactly once with + - * /.

    Try moves first; then answer sure, likely or impossible. A single number is sure only if it is 24.
    """

    state: str = dspy.InputField(desc="the remaining numbers")
    rationale: str = dspy.OutputField(desc="moves that were tried, and what they lead to")
    score: str = dspy.OutputField(desc="one word: sure, likely or impossible")


class LookaheadNumbers(dspy.Signature):
    """Evaluate if the given numbers can reach 24, by looking one move ahead.

    Name the best move, the numbers it leaves, and why those are worth their score.
    With a single number left, best action and next state are "none".
    """

    state: str = dspy.InputField(desc="the remaining numbers")
    best_action: str = dspy.OutputField(desc="a move like `4 * 6 = 24`")
    next_state: str = dspy.OutputField(desc="the numbers remaining after the best move")
    rationale: str = dspy.OutputField(desc="why the next state is worth its score")
    score: str = dspy.OutputField(desc="one word: sure, likely or impossible")
