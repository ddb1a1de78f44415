"""One small file per algorithm over shared parts."""

from typing import TYPE_CHECKING, Any

from stl_programs.exports import found, newcomers
from stl_programs.search.base import SearchProgram
from stl_programs.search.beam import BeamSearch
from stl_programs.search.best_first import BestFirstSearch
from stl_programs.search.greedy import GreedySearch
from stl_programs.search.lite_search import LiteSearch
from stl_programs.search.mcts import MCTS
from stl_programs.search.partial_expansion import PartialExpansionSearch
from stl_programs.tree import Found

__all__ = ["MCTS", "BeamSearch", "BestFirstSearch", "Found", "GreedySearch", "LiteSearch",
           "PartialExpansionSearch", "SearchProgram"]

GROWN = newcomers(__name__)
"""Public classes of files that are not listed above, each with its module."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
