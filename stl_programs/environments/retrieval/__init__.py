"""Searching texts as Lucene does: its English analyzer, and BM25 in its arithmetic."""

from stl_programs.environments.retrieval.analyzer import analyze
from stl_programs.environments.retrieval.index import Index

__all__ = ["Index", "analyze"]
