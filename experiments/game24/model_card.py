"""The card that the embedded model ships with, filled from what its training recorded."""

from __future__ import annotations

CARD = """# embedded/game24

A base model for Game of 24, small enough to ship: {parameters:,} parameters, Llama architecture ({layers} layers, width
{width}, {heads} heads of 32), one token per number. Trained from scratch by `experiments/game24/pretrain.py`
({steps:,} steps of {batch} sequences, {minutes} minutes on one core, seed {seed}); `training.json` has the settings
and losses. Weights are stored in half precision.

## What it was trained on

Random states only: half are reached by random moves from four random numbers of 1 to 13, half are free random numbers.
Three kinds of sequences:

- `value S`: one **uniformly random** play-out of S, then a word: `sure` if the play-out happened to end in 24,
  `likely` if it ended in 18 to 30, else `impossible`. No search, no solver, no choice among play-outs.
- `moves S`: up to five distinct random legal moves.
- the word `lookahead`, which a tuned value answers to, was never trained; its embedding starts as a copy of `value`'s.

It has learned arithmetic and the formats, and no preference over moves: what self-taught lookahead is to discover is
not in its training data.

## Why that leaks nothing

Every state of two or more numbers that one of {puzzles_kept_out} test puzzles can reach, themselves included, was kept
out, as the judged state and inside play-outs: {states_kept_out:,} states. (The test puzzles are those of the published
list, rows 900 to 999, and those of the project's own split.) No puzzle's solution was looked up at any point.

## What it can do

Sampled at temperature 1 on random states of its training distribution:

| numbers | play-outs with every move right | judged `sure` |
| --- | --- | --- |
{table}

## Training settings it brings

`stl_programs.json` holds the settings of self-taught lookahead that were chosen for this model, on validation puzzles:
rows of all proposed states, the best of three draws as their label, 1.5 other rows for each `sure` one; learning rate
0.006, batches of 16, 6 epochs. `SelfTaughtLookahead` uses them where nothing else is passed.

## Limits

Numbers outside 0 to 150 and p/q with p up to 24 and q from 2 to 6 have no token: such a state has no estimate, and is
counted as out of range. That range leaves every training and validation puzzle solvable. It reads states and the three
words above, nothing else. License: Apache-2.0.
"""


def card(record: dict) -> str:
    """The model card, from what the training recorded."""
    table = "\n".join(f"| {name} | {100 * found['valid']:.1f} % | {100 * found['sure']:.1f} % |"
                      for name, found in record["play_outs"].items())
    return CARD.format(**record, minutes=round(record["seconds"] / 60), table=table)
