"""Turning searches into better weights."""

from typing import TYPE_CHECKING, Any

from optimizers.imitation import ChosenTrajectories
from optimizers.loop import Callback, Iteration, Tuned, WeightOptimizer
from optimizers.provider import LoraProvider
from optimizers.stl import SelfTaughtLookahead
from optimizers.trainers.sft import LoraSettings
from stl_programs.exports import found, newcomers

__all__ = ["Callback", "ChosenTrajectories", "Iteration", "LoraProvider", "LoraSettings", "SelfTaughtLookahead",
           "Tuned", "WeightOptimizer"]

GROWN = newcomers(__name__)
"""Public classes of files that are not listed above, each with its module."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
