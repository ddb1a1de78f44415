"""The rolling engine under every search: bounds, budgets, journal; the only place that awaits models."""

from stl_programs.engine.budget import Budget, Cost, Ledger
from stl_programs.engine.calls import complete
from stl_programs.engine.context import Context, Run, context, enter, rolling, together
from stl_programs.engine.gate import Gate
from stl_programs.engine.job import Job, Trial
from stl_programs.engine.journal import Journal
from stl_programs.engine.local import LocalExecutor
from stl_programs.engine.notices import NO_CHOICE, UNJUDGED, NothingUnderstood
from stl_programs.engine.protocols import Executor, Search
from stl_programs.engine.reading import DamagedLines, read_journal
from stl_programs.engine.recording import Recording
from stl_programs.engine.run import run_sync, run_tasks
from stl_programs.engine.status import Status, show_progress
from stl_programs.engine.steps import begin, checked, commit, take
from stl_programs.records import TaskResult

__all__ = ["NO_CHOICE", "UNJUDGED", "Budget", "Context", "Cost", "DamagedLines", "Executor", "Gate", "Job", "Journal",
           "Ledger", "LocalExecutor", "NothingUnderstood", "Recording", "Run", "Search", "Status", "TaskResult",
           "Trial", "begin", "checked", "commit", "complete", "context", "enter", "read_journal", "rolling", "run_sync",
           "run_tasks", "show_progress", "take", "together"]
