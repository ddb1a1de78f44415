"""Turning searches into better weights."""

from optimizers.imitation import ChosenTrajectories
from optimizers.loop import Callback, Iteration, Tuned, WeightOptimizer
from optimizers.provider import LoraProvider
from optimizers.stl import SelfTaughtLookahead
from optimizers.trainers.sft import LoraSettings

__all__ = ["Callback", "ChosenTrajectories", "Iteration", "LoraProvider", "LoraSettings", "SelfTaughtLookahead",
           "Tuned", "WeightOptimizer"]
