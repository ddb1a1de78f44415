"""Search programs over language models: policy, value and lookahead as typed signatures."""

from stl_programs.engine import TaskResult, run_tasks
from stl_programs.environments import Environment, GameOf24
from stl_programs.policy import LegalMoves, Policy
from stl_programs.search import BeamSearch, GreedySearch, SearchProgram
from stl_programs.tree import Node, Tree
from stl_programs.value import Oracle, Uniform, Value

__version__ = "0.1.0"

__all__ = ["BeamSearch", "Environment", "GameOf24", "GreedySearch", "LegalMoves", "Node", "Oracle", "Policy",
           "SearchProgram", "TaskResult", "Tree", "Uniform", "Value", "run_tasks"]
