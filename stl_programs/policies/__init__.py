"""Policies: what could be done next in a situation (equation 1 of the paper)."""

from stl_programs.policies.base import BasePolicy
from stl_programs.policies.legal import LegalMoves
from stl_programs.policies.sampled import Policy

__all__ = ["BasePolicy", "LegalMoves", "Policy"]
