"""One file per task family; no prompts."""

from stl_programs.environments.base import Environment, Judge, sealed_reward
from stl_programs.environments.checks import Finding, Findings, check_environment
from stl_programs.environments.game24.world import GameOf24
from stl_programs.environments.gymnasium import GymnasiumEnvironment
from stl_programs.environments.sessions import Observation, SessionEnvironment

__all__ = ["Environment", "Finding", "Findings", "GameOf24", "GymnasiumEnvironment", "Judge", "Observation",
           "SessionEnvironment", "check_environment", "sealed_reward"]
