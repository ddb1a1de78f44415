"""Arithmetic expressions as text: a grammar, never eval.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = ["-"] (digits | "(" sum ")")
"""

from __future__ import annotations

import re
from fractions import Fraction

from stl_programs.errors import TaskError

MAX_LENGTH = 200
"""Longest expression that is read, in characters."""


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The exact value of `expression` and the whole numbers in it, in order. Raises TaskError."""
    if len(expression) > MAX_LENGTH:
        raise TaskError(f"an expression of {len(expression)} characters; the limit is {MAX_LENGTH}")
    tokens = re.findall(r"\d+|[-+*/()]|\S", expression)
    parser = _Parser(tokens, expression)
    try:
        value = parser.sum()
    except RecursionError:
        raise parser.error("brackets in brackets too deep") from None
    if parser.position != len(tokens):
        raise parser.error(f"unexpected {tokens[parser.position]!r}")
    return value, parser.numbers


class _Parser:
    def __init__(self, tokens: list[str], expression: str):
        self.tokens, self.expression = tokens, expression
        self.position = 0
        self.numbers: list[int] = []

    def error(self, why: str) -> TaskError:
        return TaskError(f"{self.expression!r} is not an expression in numbers, + - * / and brackets: {why}")

    def accept(self, *options: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position] in options:
            self.position += 1
            return self.tokens[self.position - 1]
        return None

    def sum(self) -> Fraction:
        value = self.product()
        while op := self.accept("+", "-"):
            right = self.product()
            value = value + right if op == "+" else value - right
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while op := self.accept("*", "/"):
            right = self.factor()
            if op == "/" and right == 0:
                raise self.error("division by zero")
            value = value * right if op == "*" else value / right
        return value

    def factor(self) -> Fraction:
        if self.accept("-"):
            return -self.factor()
        if self.accept("("):
            value = self.sum()
            if not self.accept(")"):
                raise self.error("a bracket is not closed")
            return value
        if self.position < len(self.tokens) and re.fullmatch(r"[0-9]+", self.tokens[self.position]):
            self.numbers.append(int(self.tokens[self.position]))
            self.position += 1
            return Fraction(self.numbers[-1])
        raise self.error("a number is missing")
