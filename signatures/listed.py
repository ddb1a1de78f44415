"""Proposing where every possible action can be listed."""

from __future__ import annotations

import dspy

from signatures.general import ProposeActions


class ProposeListed(ProposeActions):
    """Propose distinct next actions for the task, most promising first.

    Every action must be one of the possible actions, word for word. Never repeat an action of the not-allowed list.
    """

    possible_actions: list[str] = dspy.InputField(desc="the actions that are possible now")
