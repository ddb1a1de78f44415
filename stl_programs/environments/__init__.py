"""One file per task family; no prompts."""

from stl_programs.environments.base import Environment, Judge, sealed_reward
from stl_programs.environments.game24.world import GameOf24

__all__ = ["Environment", "GameOf24", "Judge", "sealed_reward"]
