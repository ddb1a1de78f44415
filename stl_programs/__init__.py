"""Search programs over language models: policy, value and lookahead as typed signatures."""

from typing import TYPE_CHECKING, Any

from stl_programs import environments, policies, search, values
from stl_programs.engine import Budget, Status, TaskResult, run_sync, run_tasks, show_progress
from stl_programs.environments import (
    Environment,
    GameOf24,
    GymnasiumEnvironment,
    HotpotQA,
    Judge,
    SessionEnvironment,
    WebShop,
    check_environment,
)
from stl_programs.exports import found
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.models.doors.litellm_providers import register_with_litellm
from stl_programs.models.vllm import VllmServer
from stl_programs.policies import BasePolicy, LegalMoves, Policy
from stl_programs.predictor import Predictor
from stl_programs.records import Action, State, Task, Transition, ValueEstimate
from stl_programs.search import (
    MCTS,
    BeamSearch,
    BestFirstSearch,
    GreedySearch,
    LiteSearch,
    PartialExpansionSearch,
    SearchProgram,
)
from stl_programs.situations import Proposal, Situation
from stl_programs.tree import Node, Tree
from stl_programs.values import BaseValue, Oracle, PairwiseValue, PerDepth, SiblingValue, Uniform, Value
from stl_programs.version import __version__ as __version__

__all__ = [
    "MCTS", "Action", "BasePolicy", "BaseValue", "BeamSearch", "BestFirstSearch", "Budget", "Environment",
    "GameOf24", "GreedySearch", "GymnasiumEnvironment", "HotpotQA", "Judge", "LegalMoves", "LiteSearch", "Node",
    "Oracle", "PairwiseValue", "PartialExpansionSearch", "PerDepth", "Policy", "Predictor", "Proposal",
    "SearchProgram", "SessionEnvironment", "SiblingValue", "Situation", "State", "Status", "Task", "TaskResult",
    "Transition", "Tree", "Uniform", "Value", "ValueEstimate", "VllmServer", "WebShop", "check_environment", "lm",
    "register_with_litellm", "run_sync", "run_tasks", "show_progress"]

GROWN = environments.GROWN | policies.GROWN | values.GROWN | search.GROWN
"""What else these rooms hold, each with its module: a new method is exported by being there."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
