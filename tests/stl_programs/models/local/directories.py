"""Small model directories of any architecture, with a byte tokenizer and a ChatML template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from stl_programs.engine import run_sync
from stl_programs.models.base import Request
from stl_programs.models.local.in_process import InProcessModel

CHATML = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
END, TEXT_END = "<|im_end|>", "<|endoftext|>"


def make_tokenizer(template: str = CHATML, eos: str = END, **special: str) -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, **{"eos_token": eos, "pad_token": "<|pad|>", **special})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", END, TEXT_END]})
    tokenizer.chat_template = template
    return tokenizer


def make(folder: Path, kind: str = "llama", template: str = CHATML, eos: str = END, std: float = 0.3,
         special: dict[str, str] | None = None, generation: dict[str, Any] | None = None,
         dtype: torch.dtype = torch.float32, shard: str = "1GB", **config: Any) -> Path:
    """A random model of an architecture, saved with its tokenizer."""
    tokenizer = make_tokenizer(template, eos, **special or {})
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
             "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    named = {key: value for key, value in (sizes | config).items() if value is not Ellipsis}
    made = AutoConfig.for_model(kind, **named)
    model = AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, std)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                                               **generation or {})
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ours(folder: Path, prompts: list[str], seeds: tuple[int, ...] = (0, 1), **options: Any) -> list[list[str]]:
    """What the model of this process says to prompts that are asked at once."""
    import asyncio

    model = InProcessModel(f"local/{folder.name}", folder)
    model.check()

    async def ask() -> list[Any]:
        return await asyncio.gather(*(model.complete(Request(
            chat(prompt), seeds, **{"max_tokens": 12, "temperature": 0.0} | options)) for prompt in prompts))

    try:
        return [list(reply.texts) for reply in run_sync(ask())]
    finally:
        model.close()


@torch.inference_mode()
def theirs(folder: Path, prompts: list[str], tokens: int = 12, **options: Any) -> list[str]:
    """What a freshly opened model of transformers says to each prompt by `generate`."""
    from transformers import AutoTokenizer

    tokenizer, said = AutoTokenizer.from_pretrained(folder), []
    for prompt in prompts:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        read = tokenizer.apply_chat_template(chat(prompt), add_generation_prompt=True, return_tensors="pt",
                                             return_dict=True)
        out = model.generate(**read, max_new_tokens=tokens, do_sample=False, **options)
        said.append(tokenizer.decode(out[0, read["input_ids"].shape[1]:], skip_special_tokens=True))
    return said
