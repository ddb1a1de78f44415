"""The paper's protocol on HotpotQA (its section 5.2)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.hotpotqa.judging import JudgedHotpotQA
from experiments.kit import protocol
from experiments.kit.command import whole
from experiments.kit.protocol import Settings, World
from signatures.hotpotqa import POLICY_EXAMPLES, VALUE_EXAMPLES
from stl_programs import BasePolicy, Environment, HotpotQA, LegalMoves, Value
from stl_programs.costs import Bill
from stl_programs.policies.selecting import FillingPolicy
from stl_programs.testing.readers import wiki_script


class Answering(World):
    """Self-Taught Lookahead on HotpotQA, by the paper's protocol: 500 training questions, depth 4, greedy search.

        python -m experiments.hotpotqa                                 # a fictional wiki and a named fake that judges
        python -m experiments.hotpotqa --data hotpot_dev_fullwiki.json --judge openai/gpt-4o \\
            --policy openai/gpt-4o --value hosted_vllm/NAME --weights DIR
    """

    name, title = "hotpotqa", "HotpotQA, value model tuned by its own lookahead"
    fake = "word-counting librarian", wiki_script
    settings = Settings(tasks=500)
    judged: JudgedHotpotQA | None = None

    def flags(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", help="a file of the data set. Default: the embedded, fictional wiki")
        parser.add_argument("--wiki", help="a corpus file, in place of the pages of the data's own contexts")
        parser.add_argument("--depth", type=whole(2, 100), default=4, help="steps to an answer. Default: 4")
        parser.add_argument("--judge", help="a LiteLLM string: an answer counts where it matches the right one "
                                            "exactly, or where this model calls it right. Default: exact match alone")

    def open(self, arguments: argparse.Namespace, run_dir: Path) -> None:
        env = HotpotQA(arguments.data, wiki=arguments.wiki, max_depth=arguments.depth)
        self.training = self.testing = env
        if arguments.judge:
            self.testing = self.judged = JudgedHotpotQA(env, arguments.judge, run_dir / "judged.jsonl")

    def policy(self, settings: Settings, env: Environment) -> BasePolicy:
        if settings.policy == "legal":
            return LegalMoves()
        policy = FillingPolicy(env.policy_signature, settings.policy, count=settings.actions,
                               max_tokens=settings.max_tokens, format=settings.policy_format)
        policy.predict.demos = list(POLICY_EXAMPLES)
        return policy

    def value(self, settings: Settings, lm: Any) -> Value:
        value = Value(HotpotQA.value_signature, lm, samples=settings.samples, aggregate="mean",
                      max_tokens=settings.max_tokens, format=settings.value_format, rationale="innermost")
        value.predict.demos = list(VALUE_EXAMPLES)
        return value

    def notes(self) -> str:
        said = self.judged.said() if self.judged else "Scores are exact matches."
        return f"{super().notes()} {said}"

    def bills(self) -> list[Bill]:
        return self.judged.bills() if self.judged else []


def main(argv: Sequence[str] | None = None) -> int:
    return protocol.main(Answering(), "experiments.hotpotqa", argv)
