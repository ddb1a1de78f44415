"""Everything fake, by name: scripted models, a simulated server, its players and traffic, synthetic worlds."""

from stl_programs.testing.answering import answering
from stl_programs.testing.scripted import Said, ScriptedModel
from stl_programs.testing.simulator import Simulator, SimulatorProcess
from stl_programs.testing.traffic import Errors, Latency
from stl_programs.testing.tree_world import TreeWorld

__all__ = ["Errors", "Latency", "Said", "ScriptedModel", "Simulator", "SimulatorProcess", "TreeWorld", "answering"]
