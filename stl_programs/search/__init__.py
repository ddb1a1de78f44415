"""One small file per algorithm over shared parts."""

from stl_programs.search.base import SearchProgram
from stl_programs.search.beam import BeamSearch
from stl_programs.search.greedy import GreedySearch
from stl_programs.tree import Found

__all__ = ["BeamSearch", "Found", "GreedySearch", "SearchProgram"]
