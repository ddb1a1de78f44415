"""Asking backends of worlds over HTTP, within bounds."""

from stl_programs.environments.remote.web import Web

__all__ = ["Web"]
