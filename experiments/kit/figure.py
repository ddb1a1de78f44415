"""The picture of a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.kit.evaluation import place
from experiments.kit.tables import WORDS, panels

CHOSEN, OTHER = "#1f77b4", "#b8c4d0"


def draw(summary: dict[str, Any], path: Path) -> None:
    """The summary's measure by row with 95 % intervals, one panel per split and setting; PNG at `path`.

    A split that only served to choose is left out, unless there is no other.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measure = summary["measure"]
    scored = {place(row["split"], row["setting"]) for row in summary["rows"] if row["split"] != summary["chosen_on"]}
    shown = [panel for panel in panels(summary) if panel in scored] or panels(summary)
    fig, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.6), squeeze=False)
    for axis, panel in zip(axes[0], shown, strict=True):
        rows = [row for row in summary["rows"] if place(row["split"], row["setting"]) == panel]
        means = np.array([row[measure]["mean"] for row in rows])
        errors = np.abs(np.array([[row[measure]["low"], row[measure]["high"]] for row in rows]).T - means)
        colors = [CHOSEN if row["row"] == summary["chosen"] else OTHER for row in rows]
        axis.barh([row["row"] for row in rows], means, xerr=errors, color=colors, ecolor="#444", capsize=2)
        for height, mean in enumerate(means):
            axis.text(0.015, height, f"{mean:.2f}", va="center", fontsize=8)
        axis.set(xlim=(0, 1.02), title=panel, xlabel=WORDS[measure])
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{summary['title']} ({summary['information']})", fontsize=10)
    fig.tight_layout()
    fig.savefig(path, dpi=130)
    plt.close(fig)
