"""The two seams of the engine: what it runs (`Search`), and who runs it (`Executor`)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, ClassVar, Protocol

from stl_programs.engine.budget import Budget
from stl_programs.environments.base import Environment
from stl_programs.errors import SettingError
from stl_programs.models import Model
from stl_programs.records import Task
from stl_programs.tree import Found


class Search(Protocol):
    """What the engine runs: a search program."""

    environment: Environment
    budget: Budget | None

    @property
    def information(self) -> str:
        """Either "reward-free" or what the search may see beyond that."""

    async def search(self, task: Task) -> Found:
        """Search one task. Raises StlError when it cannot be finished."""

    async def commit(self, found: Found) -> Found:
        """Take the chosen action that cannot be undone, where there is one."""

    def models(self) -> list[Model]:
        """The models that it may ask."""


class Executor:
    """Who runs the trials of a job. A subclass is known by its `kind` once it is defined.

    A subclass whose kind is "ray", in the module `stl_programs.engine.ray`, is found there without an import.

    Example:
        >>> class Backwards(LocalExecutor):
        ...     kind = "backwards"
        ...     async def run(self, job):
        ...         job.todo.reverse()
        ...         await super().run(job)
        >>> run_sync(run_tasks(program, tasks, executor="backwards"))
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Executor]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} is an Executor without a `kind`: name it, as `kind = \"mine\"`")
        Executor.kinds[cls.kind] = cls

    async def run(self, job: Any) -> None:
        """Search every trial of `job.todo` (a `Job`), in any order, and await `job.finished(result)` for each.

        What a trial costs is told to `job.run.tally` (a `Context` of this process does that). A task that fails is a
        result with its error; what is raised here ends the run.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(job)")


def executor_of(executor: str | Executor) -> Executor:
    """An executor by its kind; an executor itself is taken as it is. Raises ValueError for a kind that is none."""
    if isinstance(executor, Executor):
        return executor
    if not isinstance(executor, str):
        raise SettingError(f"executor={executor!r}: pass the kind of an Executor, or an Executor")
    if executor not in Executor.kinds and executor.isidentifier():
        module = f"{__package__}.{executor}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    if executor not in Executor.kinds:
        raise ValueError(f"executor={executor!r}: known are {', '.join(map(repr, sorted(Executor.kinds)))}; import the "
                         "module that defines it, or pass an Executor")
    return Executor.kinds[executor]()
