"""Runnable studies, tracking, statistics and reports."""
