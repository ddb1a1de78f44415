"""The paper's protocol on WebShop (its section 5.1)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.kit import protocol
from experiments.kit.command import whole
from experiments.kit.protocol import Settings, World
from signatures.webshop import OPTION_EXAMPLES, POLICY_EXAMPLES, VALUE_EXAMPLES
from stl_programs import BasePolicy, Environment, LegalMoves, Value, WebShop
from stl_programs.environments.webshop.world import OPTION, OPTION_JUDGE
from stl_programs.policies.selecting import SelectingPolicy
from stl_programs.testing.readers import shop_script


class Shopping(World):
    """Self-Taught Lookahead on WebShop, by the paper's protocol: 50 training tasks, depth 5, 5 actions, greedy search.

        python -m experiments.webshop                                  # a fictional shop and a named fake that judges
        python -m experiments.webshop --items items_shuffle.json --attributes items_ins_v2.json \\
            --human items_human_ins.json --policy openai/gpt-4o --value hosted_vllm/NAME --weights DIR
    """

    name, title = "webshop", "WebShop, value model tuned by its own lookahead"
    fake = "word-counting shopper", shop_script

    def flags(self, parser: argparse.ArgumentParser) -> None:
        for flag, what in (("items", "items_shuffle*.json"), ("attributes", "items_ins_v2*.json"),
                           ("human", "items_human_ins.json")):
            parser.add_argument(f"--{flag}", help=f"the benchmark's {what}. Default: the embedded, fictional shop")
        parser.add_argument("--most", type=whole(1), help="read only the first MOST products")
        parser.add_argument("--depth", type=whole(2, 100), default=5, help="of a trajectory. Default: 5")
        parser.add_argument("--tagger", choices=["auto", "rules", "spacy"], default="auto",
                            help="finds the nouns that the reward compares. Default: auto")

    def open(self, arguments: argparse.Namespace, run_dir: Path) -> None:
        env = WebShop(arguments.items, arguments.attributes, arguments.human, most=arguments.most,
                      max_depth=arguments.depth, tags=arguments.tagger)
        self.testing, self.training = env, env.with_judged_options()

    def policy(self, settings: Settings, env: Environment) -> BasePolicy:
        if settings.policy == "legal":
            return LegalMoves()
        policy = SelectingPolicy(env.policy_signature, settings.policy, count=settings.actions,
                                 max_tokens=settings.max_tokens, format=settings.policy_format)
        policy.predict.demos = list(POLICY_EXAMPLES)
        return policy

    def value(self, settings: Settings, lm: Any) -> Value:
        value = Value(WebShop.value_signature, lm, samples=settings.samples, aggregate="mean", judges=OPTION_JUDGE,
                      max_tokens=settings.max_tokens, format=settings.value_format, rationale="innermost")
        value.predict.demos, value.pages[OPTION].demos = list(VALUE_EXAMPLES), list(OPTION_EXAMPLES)
        return value


def main(argv: Sequence[str] | None = None) -> int:
    return protocol.main(Shopping(), "experiments.webshop", argv)
