"""One file per task family; no prompts."""

from typing import TYPE_CHECKING, Any

from stl_programs.environments.base import Environment, Judge, sealed_reward
from stl_programs.environments.checks import Finding, Findings, check_environment
from stl_programs.environments.game24.world import GameOf24
from stl_programs.environments.gymnasium import GymnasiumEnvironment
from stl_programs.environments.hotpotqa import HotpotQA
from stl_programs.environments.sessions import Observation, SessionEnvironment
from stl_programs.environments.webshop import WebShop
from stl_programs.exports import found, newcomers

__all__ = ["Environment", "Finding", "Findings", "GameOf24", "GymnasiumEnvironment", "HotpotQA", "Judge", "Observation",
           "SessionEnvironment", "WebShop", "check_environment", "sealed_reward"]

GROWN = newcomers(__name__)
"""Public classes of files that are not listed above, each with its module."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
