"""Measurements against goals: `python -m experiments.benchmarks.NAME`; each prints its figures beside its goals."""
