"""Game of 24."""

from stl_programs.environments.game24.world import GameOf24

__all__ = ["GameOf24"]
