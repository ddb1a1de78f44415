"""Turning searches into better weights."""

from optimizers.lora import LoraSettings
from optimizers.provider import LoraProvider
from optimizers.stl import Callback, Iteration, SelfTaughtLookahead, Tuned

__all__ = ["Callback", "Iteration", "LoraProvider", "LoraSettings", "SelfTaughtLookahead", "Tuned"]
