"""Tuning the policy on the trajectories that searches chose: what a search found, the policy then proposes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimizers.data.rows import Dataset, rows_hash
from optimizers.loop import Tuned, WeightOptimizer
from signatures import signature_version
from stl_programs.construct import Share, checked
from stl_programs.engine import TaskResult
from stl_programs.errors import ModelError, StlError
from stl_programs.models.formats import format_name
from stl_programs.policies import Policy
from stl_programs.predictor import Predictor
from stl_programs.search import SearchProgram
from stl_programs.situations import as_input
from stl_programs.tree import Node, Tree


class ChosenTrajectories(WeightOptimizer):
    """Fine-tune a program's policy on the steps of the trajectories that its own searches chose. Reads no reward.

    Args:
        above: the chosen leaf's worth in [0, 1], by the program's own value, that a trajectory needs.
        options: of every `WeightOptimizer`.

    Example:
        >>> better = ChosenTrajectories(tasks_per_iteration=100, above=0.9).compile(program, trainset=tasks)
    """

    role = "policy"

    @checked
    def __init__(self, *, above: Share = 0.5, run_dir: str | Path = "runs/chosen", **options: Any):
        super().__init__(run_dir=run_dir, **options)
        self.above = above

    def tunes(self, student: SearchProgram) -> Predictor:
        if not isinstance(student.policy, Policy):
            raise ModelError(f"the program's policy is {type(student.policy).__name__}; a Policy is tuned")
        return student.policy.predict

    def datasets(self, student: SearchProgram, rollouts: Sequence[TaskResult], k: int) -> Mapping[int | None, Dataset]:
        """A row per state of the chosen paths: the policy's question, and the action that was chosen there."""
        predict = student.policy.predict
        format_, dropped, rows = predict.prompt_format, Counter[str](), list[dict[str, Any]]()
        for result in rollouts:
            if result.tree is None:
                dropped["a failed rollout"] += 1
                continue
            tree = Tree.from_dict(result.tree)
            tree.environment = student.environment
            leaf = tree.nodes[tree.about["chosen"]]
            if not leaf.state.terminal:
                dropped["the trajectory is not finished"] += 1
            elif student.unit(leaf.estimate) < self.above:
                dropped[f"the chosen leaf is worth less than {self.above:g}"] += 1
            else:
                rows += [_row(predict, format_, tree, before, after)
                         for before, after in zip(tree.path(leaf), tree.path(leaf)[1:], strict=False)]
        unique = list({str(row): row for row in rows}.values())
        if not unique:
            raise StlError(f"no chosen trajectory is left of {len(rollouts)} rollouts: {dict(dropped)}; lower `above`, "
                           "or search longer")
        return {None: Dataset([], unique, [], {
            "rows": len(unique), "examples": len(rows), "dropped": dict(dropped), "variant": None,
            "signature": signature_version(predict.signature), "format": format_name(format_),
            "sha256": rows_hash(unique)})}

    def with_adapters(self, student: SearchProgram, tuned: Sequence[Tuned]) -> SearchProgram:
        """The student whose policy answers with the adapter."""
        program: SearchProgram = student.deepcopy()
        program.policy.predict.adapter = tuned[0].lm
        return program


def _row(predict: Predictor, format_: Any, tree: Tree, before: Node, after: Node) -> dict[str, Any]:
    known = tree.environment.fields(tree.situation(before)) | {"not_allowed": [], "count": 1} | (before.inputs or {})
    inputs = {}
    for name, field in predict.signature.input_fields.items():
        value = known[name]
        inputs[name] = as_input(value() if callable(value) else value, field.annotation)
    outputs: dict[str, Any] = {"actions": [after.action]} if "actions" in predict.signature.output_fields else {
        "action": after.action}
    answer = format_.format_assistant_message_content(predict.signature, outputs)
    return {"prompt": format_.format(predict.signature, predict.demos, inputs),
            "completion": [{"role": "assistant", "content": answer}]}
