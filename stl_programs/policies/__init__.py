"""Policies: what could be done next in a situation (equation 1 of the paper)."""

from typing import TYPE_CHECKING, Any

from stl_programs.exports import found, newcomers
from stl_programs.policies.base import BasePolicy
from stl_programs.policies.legal import LegalMoves
from stl_programs.policies.sampled import Policy

__all__ = ["BasePolicy", "LegalMoves", "Policy"]

GROWN = newcomers(__name__)
"""Public classes of files that are not listed above, each with its module."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
