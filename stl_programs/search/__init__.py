"""One small file per algorithm over shared parts."""

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
