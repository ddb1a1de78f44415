"""Turning searches into better weights."""

from optimizers.lora import LoraSettings
from optimizers.stl import Callback, Iteration, SelfTaughtLookahead

__all__ = ["Callback", "Iteration", "LoraSettings", "SelfTaughtLookahead"]
