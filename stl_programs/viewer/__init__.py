"""A recorded tree as one self-contained HTML page, for a browser or MLflow's artifact view."""

from stl_programs.viewer.page import tree_page

__all__ = ["tree_page"]
