"""Train the base value model `embedded/game24` from scratch on random states.

    python -m experiments.game24.pretrain --out DIR [--steps 6000] [--device cuda]

The model learns arithmetic and the answer formats, and no preference over moves: a judgement
is one uniformly random play-out, called `sure` only when that play-out happens to end in 24.
States that can be reached from a test puzzle are kept out, both as the judged state and inside a play-out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import torch

from experiments.game24.model_card import card

LARGEST = 150
OPS = "+*-/"
WORDS = ["<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>", "value", "lookahead", "moves",
         "+", "*", "-", "/", "=", "->", ".", "|", ";", "end", "none", "impossible", "likely", "sure"]
KINDS = {"1": 0.02, "2": 0.22, "3": 0.42, "4": 0.22, "moves": 0.12}
"""Share of training sequences: judgements of states of 1 to 4 numbers, and lists of moves."""


def numbers() -> list[Fraction]:
    """The model's range: 0 to 150, and p/q with p <= 24 and 2 <= q <= 6, by value.

    Small, and yet every training and validation puzzle keeps a solution inside it.
    """
    whole = {Fraction(n) for n in range(LARGEST + 1)}
    return sorted(whole | {Fraction(p, q) for p in range(1, 25) for q in range(2, 7)})


class RandomGame:
    """Vectorised random play over number ids; every tensor lives on `device`.

    A state is a row of ascending number ids (ids ascend with value). `forbidden` holds sorted codes of the
    states that must not occur.
    """

    def __init__(self, forbidden: Iterable[tuple[Fraction, ...]], device: str):
        self.values = numbers()
        self.index = {value: i for i, value in enumerate(self.values)}
        self.device = device
        n = len(self.values)
        table = torch.full((4, n, n), -1, dtype=torch.long)
        for a, x in enumerate(self.values):
            for b, y in enumerate(self.values):
                results = (x + y, x * y, x - y, x / y if y else None)
                for op, result in enumerate(results):
                    table[op, a, b] = self.index.get(result, -1) if result is not None else -1
        self.table = table.to(device)
        codes = [self._code_one(s) for s in forbidden if len(s) > 1 and all(x in self.index for x in s)]
        self.forbidden = torch.tensor(sorted(set(codes)) or [-1], device=device)

    def _code_one(self, state: tuple[Fraction, ...]) -> int:
        code = 0
        for i in sorted(self.index[x] for x in state):
            code = code * 1024 + i + 1
        return code

    def allowed(self, states: torch.Tensor) -> torch.Tensor:
        """[B, n] ids -> [B] bool."""
        if states.shape[1] == 1:
            return torch.ones(len(states), dtype=torch.bool, device=self.device)
        code = torch.zeros(len(states), dtype=torch.long, device=self.device)
        for column in range(states.shape[1]):
            code = code * 1024 + states[:, column] + 1
        return ~torch.isin(code, self.forbidden)

    def options(self, states: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
        """All moves of each state: results [B, M] (-1 where impossible) and the M (op, i, j)."""
        n = states.shape[1]
        moves = [(op, i, j) for i in range(n) for j in range(n) if i != j for op in range(4) if op > 1 or i < j]
        op, i, j = (torch.tensor(column, device=self.device) for column in zip(*moves, strict=True))
        return self.table[op[None], states[:, i], states[:, j]], moves

    def choose(self, states: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """k distinct uniform moves: (a, op, b, result) [B, k, 4], rest [B, k, n-2], valid [B, k]."""
        results, moves = self.options(states)
        noise = torch.rand(results.shape, device=self.device).masked_fill(results < 0, -1.0)
        top, picked = noise.topk(min(k, len(moves)), dim=1)
        table = torch.tensor(moves, device=self.device)[picked]
        a = states.gather(1, table[..., 1])
        b = states.gather(1, table[..., 2])
        result = results.gather(1, picked)
        n = states.shape[1]
        rest = torch.tensor([[c for c in range(n) if c not in (i, j)] for _, i, j in moves],
                            device=self.device, dtype=torch.long).reshape(len(moves), n - 2)[picked]
        rest = states[:, None, :].expand(-1, picked.shape[1], -1).gather(2, rest)
        return torch.stack([a, table[..., 0], b, result], -1), rest, top >= 0

    def draw(self, batch: int, n: int) -> torch.Tensor:
        """Random states of n numbers: half by random moves from four numbers in 1..13, half of free numbers."""
        small = [self.index[Fraction(v)] for v in range(1, 14)]
        small_ids = torch.tensor(small, device=self.device)
        half = batch // 2
        played = small_ids[torch.randint(13, (half, 4), device=self.device)].sort(1).values
        while played.shape[1] > n:
            move, rest, valid = self.choose(played, 1)
            played = torch.cat([rest[:, 0], move[:, 0, 3:]], 1).sort(1).values[valid[:, 0]]
        free_shape = (batch - half, n)
        kind = torch.rand(free_shape, device=self.device)
        whole = torch.tensor([self.index[Fraction(v)] for v in range(LARGEST + 1)], device=self.device)
        fractions = torch.tensor([i for v, i in self.index.items() if v.denominator > 1], device=self.device)
        free = small_ids[torch.randint(13, free_shape, device=self.device)]
        free = torch.where(kind > 0.45, whole[torch.randint(61, free_shape, device=self.device)], free)
        free = torch.where(kind > 0.80, whole[torch.randint(LARGEST + 1, free_shape, device=self.device)], free)
        free = torch.where(kind > 0.88, fractions[torch.randint(len(fractions), free_shape, device=self.device)], free)
        states = torch.cat([played, free.sort(1).values])
        return states[self.allowed(states)]


class Sequences:
    """Token sequences of the two answer formats; see `WORDS` for the vocabulary."""

    def __init__(self, game: RandomGame):
        self.game = game
        self.tokens = WORDS + [str(v) for v in game.values]
        self.word = {w: i for i, w in enumerate(WORDS)}
        self.first_number = len(WORDS)
        self.op_token = torch.tensor([self.word[op] for op in OPS], device=game.device)
        value = torch.tensor([float(v) for v in game.values], device=game.device)
        label = torch.where((value >= 18) & (value <= 30), self.word["likely"], self.word["impossible"])
        label[game.index[Fraction(24)]] = self.word["sure"]
        self.label = label
        """Score word by the number that a play-out ends in: 24 is sure, 18 to 30 likely, else impossible."""

    def _column(self, like: torch.Tensor, word: str) -> torch.Tensor:
        return torch.full((len(like), 1), self.word[word], device=self.game.device)

    def _move(self, move: torch.Tensor) -> list[torch.Tensor]:
        a, op, b, result = move.unbind(-1)
        number = self.first_number
        return [(a + number)[:, None], self.op_token[op][:, None], (b + number)[:, None],
                self._column(a, "="), (result + number)[:, None]]

    def prompt(self, states: torch.Tensor, kind: str) -> list[torch.Tensor]:
        return [self._column(states, "<|user|>"), self._column(states, kind), states + self.first_number,
                self._column(states, "<|assistant|>")]

    def judgements(self, batch: int, n: int) -> tuple[torch.Tensor, int]:
        """`value S` -> `a op b = c -> S' . ... . end | label`; ([B, T] tokens, prompt length)."""
        states = self.game.draw(batch, n)
        rows, keep = self.prompt(states, "value"), torch.ones(len(states), dtype=torch.bool, device=states.device)
        length = sum(column.shape[1] for column in rows)
        while states.shape[1] > 1:
            move, rest, valid = self.game.choose(states, 1)
            states = torch.cat([rest[:, 0], move[:, 0, 3:].clamp(min=0)], 1).sort(1).values
            keep &= valid[:, 0] & self.game.allowed(states)
            rows += [*self._move(move[:, 0]), self._column(states, "->"), states + self.first_number,
                     self._column(states, ".")]
        rows += [self._column(states, "end"), self._column(states, "|"), self.label[states[:, :1]],
                 self._column(states, "<|end|>")]
        return torch.cat(rows, 1)[keep], length

    def moves(self, batch: int) -> list[tuple[torch.Tensor, int]]:
        """`moves S` -> up to five distinct random moves."""
        out = []
        for n, share in ((4, 0.4), (3, 0.35), (2, 0.25)):
            states = self.game.draw(int(batch * share), n)
            move, _, valid = self.game.choose(states, 5)
            count = valid.sum(1)
            head = self.prompt(states, "moves")
            length = sum(column.shape[1] for column in head)
            for k in range(1, valid.shape[1] + 1):
                rows = list(head)
                for step in range(k):
                    rows += [*self._move(move[:, step]), self._column(states, ";" if step < k - 1 else "<|end|>")]
                tokens = torch.cat(rows, 1)[count == k]
                if len(tokens):
                    out.append((tokens, length))
        return out

    def batch(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Two groups (short, long) of tokens and labels [B, T], right-padded; label -100: nothing to learn."""
        parts = [self.judgements(int(size * KINDS[str(n)]), n) for n in (1, 2, 3, 4)]
        parts += self.moves(int(size * KINDS["moves"]))
        short = [part for part in parts if part[0].shape[1] <= 27]
        return [self._pad(group) for group in (short, [part for part in parts if part[0].shape[1] > 27])]

    def _pad(self, parts: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        shape = sum(len(part) for part, _ in parts), max(part.shape[1] for part, _ in parts)
        tokens = torch.zeros(shape, dtype=torch.long, device=self.game.device)
        labels = torch.full_like(tokens, -100)
        row = 0
        for part, length in parts:
            tokens[row:row + len(part), :part.shape[1]] = part
            labels[row:row + len(part), length:part.shape[1]] = part[:, length:]
            row += len(part)
        return tokens, labels


def number_features(values: list[Fraction], width: int) -> torch.Tensor:
    """Fourier features of value, logarithm, numerator and denominator: [N, width], unit variance."""
    x = torch.tensor([float(v) for v in values])
    top = torch.tensor([float(v.numerator) for v in values])
    below = torch.tensor([float(v.denominator) for v in values])
    columns = []
    for period in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 24, 50, 100, 200, 400):
        columns += [torch.cos(2 * math.pi * top / period), torch.sin(2 * math.pi * top / period)]
    for period in (2, 3, 5, 13):
        columns += [torch.cos(2 * math.pi * below / period), torch.sin(2 * math.pi * below / period)]
    for octave in (0.5, 1.0, 2.0, 4.0, 8.0):
        columns += [torch.cos(2 * math.pi * torch.log(x + 0.05) / octave),
                    torch.sin(2 * math.pi * torch.log(x + 0.05) / octave)]
    for period in (30, 60, 120, 240, 480):
        columns += [torch.cos(2 * math.pi * x / period), torch.sin(2 * math.pi * x / period)]
    features = torch.stack(columns, 1)
    generator = torch.Generator().manual_seed(0)
    mixed = features @ torch.randn(features.shape[1], width, generator=generator)
    return (mixed - mixed.mean(0)) / mixed.std(0)


def build(sequences: Sequences, width: int, layers: int, heads: int, feed_forward: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    word = sequences.word
    config = LlamaConfig(
        vocab_size=len(sequences.tokens), hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=32, max_position_embeddings=64,
        tie_word_embeddings=False, pad_token_id=word["<pad>"], bos_token_id=None, eos_token_id=word["<|end|>"],
        attention_bias=False, rope_theta=10000.0)
    model = LlamaForCausalLM(config)
    features = number_features(sequences.game.values, width)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, 0.5)
        model.model.embed_tokens.weight[sequences.first_number:] = 0.5 * features
        model.lm_head.weight.normal_(0, 0.02)
        model.lm_head.weight[sequences.first_number:] += 0.05 * features
    return model


@torch.no_grad()
def play_out_accuracy(model, sequences: Sequences, states: torch.Tensor) -> dict[str, float]:
    """Sample one judgement per state; share that is arithmetically right, and share called sure."""
    prompt = torch.cat(sequences.prompt(states, "value"), 1)
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0, max_new_tokens=34,
                         pad_token_id=0)
    right = sure = 0.0
    for state, row in zip(states.tolist(), out[:, prompt.shape[1]:].tolist(), strict=True):
        text = " ".join(sequences.tokens[t] for t in row if t != 0)
        ok, label = check_play_out([sequences.game.values[i] for i in state], text)
        right += ok
        sure += ok and label == "sure"
    return {"valid": right / len(states), "sure": sure / len(states)}


def check_play_out(state: list[Fraction], text: str) -> tuple[bool, str]:
    """Whether every move of a sampled judgement is right and its label fits, and the label."""
    body, _, tail = text.partition(" | ")
    label = tail.split(" ")[0]
    numbers_left = list(state)
    *steps, last = body.split(" . ") if body != "end" else ["end"]
    if last != "end":
        return False, label
    try:
        for step in steps:
            move, after = step.split(" -> ")
            a, op, b, _, c = move.split(" ")
            x, y, z = Fraction(a), Fraction(b), Fraction(c)
            numbers_left.remove(x)
            numbers_left.remove(y)
            result = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}[op]
            numbers_left.append(z)
            if result != z or sorted(numbers_left) != [Fraction(v) for v in after.split(" ")]:
                return False, label
    except (ValueError, KeyError, ZeroDivisionError):
        return False, label
    return len(numbers_left) == 1 and (label == "sure") == (numbers_left[0] == 24), label


def train(sequences: Sequences, *, width: int, layers: int, heads: int, feed_forward: int, steps: int, batch: int,
          learning_rate: float, seed: int, log=print):
    """Returns the trained model and a list of {step, loss, seconds}."""
    torch.manual_seed(seed)
    device = sequences.game.device
    model = build(sequences, width, layers, heads, feed_forward).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 200) * max(
        0.02, 0.5 * (1 + math.cos(math.pi * s / steps))))
    forward = torch.compile(model) if device == "cuda" else model
    started, losses = time.time(), []
    for step in range(steps):
        groups = sequences.batch(batch)
        losses_sum = sum(torch.nn.functional.cross_entropy(
            forward(input_ids=tokens).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100,
            reduction="sum") for tokens, labels in groups)
        loss = losses_sum / sum((labels != -100).sum() for _, labels in groups)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 20) == 0 or step == steps - 1:
            losses.append({"step": step, "loss": round(loss.item(), 4), "seconds": round(time.time() - started, 1)})
            log(json.dumps(losses[-1]), flush=True)
    return model, losses


BROUGHT = {"prompt_format": "compact", "training": {
    "stl": {"rollout_aggregate": "max", "rollout_samples": 3, "expand": "all", "others_per_top": 1.5},
    "lora": {"learning_rate": 6e-3, "batch_size": 16, "epochs": 6, "max_length": 2048}}}
"""What the model brings: its prompt format, and the training settings that `experiments.game24` has."""

CHAT_TEMPLATE = ("{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] + ' ' }}"
                 "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
                 "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def save(model, sequences: Sequences, out: Path, record: dict) -> None:
    """Write config, half-precision safetensors, tokenizer with chat template, and the prompt format's name."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {token: i for i, token in enumerate(sequences.tokens)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<|end|>",
        clean_up_tokenization_spaces=False, chat_template=CHAT_TEMPLATE)
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():  # a word that no training sequence held starts as the word nearest in use
        embedding = model.model.embed_tokens.weight
        embedding[sequences.word["lookahead"]] = embedding[sequences.word["value"]]
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "stl_programs.json").write_text(json.dumps(BROUGHT, indent=1) + "\n")
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "README.md").write_text(card(record), encoding="utf-8")


def kept_out(csv_path: str | None) -> list[str]:
    """The test puzzles of the published list (where it is given) and of the project's own split."""
    from stl_programs.environments import GameOf24

    environments = [GameOf24()] + ([GameOf24(csv_path)] if csv_path else [])
    return sorted({task.text for env in environments for task in env.tasks("test")})


def main() -> None:
    from stl_programs.environments.game24.world import reachable

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", help="the published puzzle list, to keep its test puzzles out too")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=512, help="sequences per step")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--feed-forward", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    puzzles = kept_out(arguments.csv)
    sequences = Sequences(RandomGame(reachable(puzzles), arguments.device))
    started = time.time()
    model, losses = train(
        sequences, width=arguments.width, layers=arguments.layers, heads=arguments.heads,
        feed_forward=arguments.feed_forward, steps=arguments.steps, batch=arguments.batch,
        learning_rate=arguments.learning_rate, seed=arguments.seed)
    model.eval()
    measured = {}
    for n in (2, 3, 4):
        measured[f"{n} numbers"] = play_out_accuracy(model, sequences, sequences.game.draw(2000, n))
    record = {"parameters": sum(p.numel() for p in model.parameters()), "seconds": round(time.time() - started),
              "puzzles_kept_out": len(puzzles), "states_kept_out": len(reachable(puzzles)), "play_outs": measured,
              "losses": losses, **{k: v for k, v in vars(arguments).items() if k not in ("out", "csv", "device")}}
    save(model, sequences, arguments.out, record)
    print(json.dumps({k: v for k, v in record.items() if k != "losses"}, indent=1))


if __name__ == "__main__":
    main()
