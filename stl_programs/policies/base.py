"""What a policy proposes."""

from __future__ import annotations

from stl_programs.records import Action, Transition

Proposal = tuple[Action, Transition]
"""A legal action and what it leads to."""
