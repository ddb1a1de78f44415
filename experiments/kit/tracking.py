"""MLflow: one parent run per compile, one child per iteration, in a sqlite store."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from optimizers import Iteration, SelfTaughtLookahead
from optimizers.loop import Stage, Tuned
from stl_programs import SearchProgram
from stl_programs.costs import AMOUNTS, Bill, bills_of, total, training_bill
from stl_programs.errors import StlError
from stl_programs.extras import need
from stl_programs.models.served.http import NoAnswer, ask
from stl_programs.models.served.urls import under
from stl_programs.outside import CONFIG_BYTES, Strict, parsed, read_json, write_atomically
from stl_programs.records import Usage
from stl_programs.secrets import cleaned, masked, shown_url
from stl_programs.viewer import tree_page

STORE = "sqlite:///mlflow.db"
ANSWER_SECONDS = 10.0
"""How long a tracking server may take to say that it is there."""


class MlflowCallback:
    """Logs a compile to MLflow; pass it as SelfTaughtLookahead(callback=...).

    The parent run holds the settings; each child run the data set (`log_input`), the adapter, rows kept and dropped by
    reason, labels, losses, what it cost (`costs.json`: a row per module, model and task, and the training; metrics by
    phase), and one search tree as a page. `log_scores` adds scores of evaluations, `log_costs` what these cost.
    Text that could hold a key (environment variables, connection options) is never logged.

    A run, tracking URI and experiment of the user's own stay as they are. A store that cannot be used is a StlError
    before anything is rolled out; one that fails later is said once, and the results are kept without it.

    Raises StlError where mlflow is not installed.
    """

    def __init__(self, *, store: str = STORE, experiment: str = "stl", run_name: str | None = None):
        need("tracking in MLflow", "mlflow")
        self.store, self._shown = store, shown_url(store)
        self.experiment, self.run_name = masked(experiment), run_name and masked(run_name)
        self.parent: str | None = None
        self.children: dict[int, str] = {}
        self._lost = False

    def on_start(self, optimizer: SelfTaughtLookahead, program: SearchProgram) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._apart(lambda: self._start(optimizer, program), first=True)

    def _apart(self, work: Callable[[], None], *, first: bool = False) -> None:
        """Do `work` in the store, in a thread of its own, as a user's open run belongs to the thread that opened it."""
        import mlflow

        if self._lost:
            return
        before, failed = mlflow.get_tracking_uri(), list[Exception]()

        def target() -> None:
            try:
                work()
            except Exception as error:
                failed.append(error)

        try:
            mlflow.set_tracking_uri(self.store)
            (thread := threading.Thread(target=target)).start()
            thread.join()
        except Exception as error:
            failed.append(error)
        finally:
            mlflow.set_tracking_uri(before)
        if failed:
            why = " ".join(masked(str(failed[0])).split())[:200]
            text = f"the MLflow store {self._shown} cannot be used: {type(failed[0]).__name__}: {why}"
            if first:
                raise StlError(f"{text}; correct it, or go without") from failed[0]
            self._lost = True
            warnings.warn(f"{text}; the results are kept, and not logged any more", RuntimeWarning, stacklevel=3)

    def _start(self, optimizer: SelfTaughtLookahead, program: SearchProgram) -> None:
        import mlflow

        check_answers(self.store)
        found = mlflow.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else mlflow.create_experiment(
            self.experiment, artifact_location=artifacts_of(self.store))
        self._experiment_id = experiment
        self._notes = optimizer.run_dir / "mlflow.json"
        notes = read_notes(self._notes)
        if notes and notes.store == self._shown and _exists(notes.parent):  # the compile goes on, and so do its runs
            self.parent, self.children = notes.parent, {int(k): run for k, run in notes.children.items()}
            return
        self.parent = mlflow.MlflowClient().create_run(experiment, run_name=self.run_name).info.run_id
        self._keep_notes()
        with mlflow.start_run(run_id=self.parent):
            mlflow.log_params(cleaned(_flat(optimizer.settings())))
            mlflow.log_dict(cleaned(program.dump_state()), "program.json")

    def on_progress(self, k: int, stage: Stage, done: int, total: int, detail: str = "") -> None:
        """Progress bars are the caller's."""

    def on_iteration(self, iteration: Iteration, program: SearchProgram) -> None:
        if iteration.k not in self.children:
            self._apart(lambda: self._log_iteration(iteration))

    def _log_iteration(self, iteration: Iteration) -> None:
        import mlflow

        with mlflow.start_run(run_id=self.parent), mlflow.start_run(
                experiment_id=self._experiment_id, run_name=f"iteration {iteration.k}", nested=True) as run:
            mlflow.log_param("iteration", iteration.k)
            for tuned in iteration.tuned:
                _log_tuned(iteration.k, tuned, "" if tuned.depth is None else f"-d{tuned.depth}")
            _log_table(iteration_bills(iteration, per_task=True))
            mlflow.log_metrics(_rollout_metrics(iteration) | _cost_metrics(iteration_bills(iteration)))
            trees = [result.tree for result in iteration.rollouts if result.tree]
            if trees:
                mlflow.log_text(tree_page(trees[0]), "tree.html")
        self.children[iteration.k] = run.info.run_id
        self._keep_notes()

    def _keep_notes(self) -> None:
        """Which runs this compile has, for when it goes on."""
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        found = {"store": self._shown, "parent": self.parent, "children": self.children}
        write_atomically(self._notes, [json.dumps(found).encode()], "the list of a compile's MLflow runs")

    def on_end(self, program: SearchProgram) -> None:
        """Nothing is left open: every run was closed where it was written."""

    def log_scores(self, k: int, scores: dict[str, float]) -> None:
        """Figures of iteration k's value, by name; those of k = 0 go to the parent run."""
        import mlflow

        def work() -> None:
            with mlflow.start_run(run_id=self.children.get(k, self.parent)):
                mlflow.log_metrics({_safe(name): value for name, value in scores.items()})

        self._apart(work)

    def log_costs(self, bills: Sequence[Bill]) -> None:
        """What the whole experiment cost: all rows to the parent run, and each iteration's evaluations to its child."""
        import mlflow

        def work() -> None:
            with mlflow.start_run(run_id=self.parent):
                _log_table(bills)
                mlflow.log_metrics(_cost_metrics(bills))
            for k, run in self.children.items():
                own = [bill for bill in bills if bill.iteration == k and not bill.one_time]
                with mlflow.start_run(run_id=run):
                    mlflow.log_metrics(_cost_metrics(own))

        self._apart(work)

    def log_files(self, *files: Path) -> None:
        import mlflow

        def work() -> None:
            with mlflow.start_run(run_id=self.parent):
                for file in files:
                    mlflow.log_artifact(str(file))

        self._apart(work)


def _log_tuned(k: int, tuned: Tuned, suffix: str) -> None:
    """The data and the adapter of one training; `suffix` tells those of an iteration apart."""
    import mlflow
    import pandas

    manifest, provenance, rows = tuned.dataset.manifest, tuned.provenance, tuned.dataset.rows
    mlflow.log_params(cleaned({f"adapter{suffix}": tuned.lm, f"data_sha256{suffix}": manifest["sha256"],
                               f"signature{suffix}": manifest["signature"]}))
    frame = pandas.DataFrame(cleaned({"prompt": [row["prompt"][-1]["content"] for row in rows],
                              "completion": [row["completion"][0]["content"] for row in rows]}))
    mlflow.log_input(mlflow.data.from_pandas(frame, name=f"lookahead-{k}{suffix}"), context="training")
    mlflow.log_dict(cleaned(manifest), f"data{suffix}/manifest.json")
    mlflow.log_artifacts(str(tuned.adapter), f"adapter{suffix}")
    metrics = {"rows_kept": manifest["rows"], "rows_dropped": sum(manifest["dropped"].values()),
               **{f"dropped/{_safe(why)}": n for why, n in manifest["dropped"].items()},
               **{f"labels/{_safe(label)}": n for label, n in manifest["labels"].items()},
               "train_seconds": provenance["train_seconds"]}
    mlflow.log_metrics({f"{name}{suffix}": value for name, value in metrics.items()})
    for name in ("losses", "validation_losses"):
        for epoch, loss in enumerate(provenance[name]):
            mlflow.log_metric(f"{name.removesuffix('es')}{suffix}", loss, step=epoch + 1)


def artifacts_of(store: str) -> str | None:
    """Beside a sqlite store's file; MLflow's own choice for any other store."""
    file = store.removeprefix("sqlite:///")
    return None if file == store else (Path(file).resolve().parent / "mlruns").as_uri()


class Notes(Strict):
    """The runs of a compile, by MLflow's names."""

    store: str
    parent: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]
    children: dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], str]


def read_notes(path: Path) -> Notes | None:
    """What a compile wrote of its runs; None where it wrote nothing. A file of anything else is set aside, and said."""
    if not path.exists():
        return None
    try:
        found = read_json(path, CONFIG_BYTES, "the list of a compile's MLflow runs")
        return parsed(Notes, found, f"{path} is not the list of a compile's MLflow runs")
    except StlError as error:
        aside = path.with_suffix(".json.damaged")
        path.replace(aside)
        warnings.warn(f"{error}; it is now {aside.name}, and MLflow gets a new run", RuntimeWarning, stacklevel=2)
        return None


def check_answers(store: str) -> None:
    """Raises StlError where a store is a server that does not answer within seconds."""
    if store.startswith(("http://", "https://")):
        try:
            ask("GET", under(store, "health"), {}, ANSWER_SECONDS)
        except NoAnswer as error:
            raise StlError(f"no answer within {ANSWER_SECONDS:g} s ({error})") from None


def _exists(run: str) -> bool:
    import mlflow

    try:
        return mlflow.get_run(run).info.lifecycle_stage == "active"
    except mlflow.exceptions.MlflowException:
        return False


def _rollout_metrics(iteration: Iteration) -> dict[str, float]:
    metrics: dict[str, float] = {
        "rollouts": len(iteration.rollouts), "rollouts_failed": sum(r.error is not None for r in iteration.rollouts)}
    totals: dict[str, Usage] = {}
    for result in iteration.rollouts:
        for role, usage in result.usage.items():
            totals.setdefault(role, Usage()).add(Usage(**usage))
    for role, sum_ in totals.items():
        metrics |= {f"rollout/{_safe(role)}/{name}": value for name, value in sum_.to_dict().items()
                    if value is not None}
    return metrics


def iteration_bills(iteration: Iteration, *, per_task: bool = False) -> list[Bill]:
    """What an iteration cost: its rollouts by module and model (`per_task`: and task), and its trainings."""
    rollouts = bills_of(iteration.rollouts, phase="rollouts", iteration=iteration.k, per_task=per_task)
    return rollouts + [training_bill(one.provenance["train_seconds"], one.lm, iteration=iteration.k)
                       for one in iteration.tuned]


def _cost_metrics(bills: Sequence[Bill]) -> dict[str, float]:
    """Sums by phase; an unknown amount is left out."""
    return {f"cost/{_safe(str(bill.phase))}/{name}": amount for bill in total(bills, by=("phase",))
            for name in AMOUNTS if (amount := getattr(bill, name)) is not None}


def _log_table(bills: Sequence[Bill]) -> None:
    """The rows as the active run's costs.json, in place of an earlier one (MLflow's own tables only grow)."""
    import mlflow

    rows = [list(bill.to_dict().values()) for bill in bills]
    mlflow.log_dict(cleaned({"columns": list(Bill().to_dict()), "data": rows}), "costs.json")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {
            f"{prefix}{name}": json.dumps(value) if isinstance(value, list) else value}
    return flat


def _safe(name: str) -> str:
    """A metric name that MLflow accepts."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in masked(name))[:200]
