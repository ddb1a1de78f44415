"""Turning searches into better weights."""

from optimizers.provider import LoraProvider
from optimizers.stl import Callback, Iteration, SelfTaughtLookahead, Tuned
from optimizers.trainers.sft import LoraSettings

__all__ = ["Callback", "Iteration", "LoraProvider", "LoraSettings", "SelfTaughtLookahead", "Tuned"]
