"""One small file per algorithm over shared parts."""

from stl_programs.search.base import Found, SearchProgram
from stl_programs.search.beam import BeamSearch
from stl_programs.search.greedy import GreedySearch

__all__ = ["BeamSearch", "Found", "GreedySearch", "SearchProgram"]
