"""What stands in for a model that would have to be downloaded: answers of a named fake, and random weights to tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stl_programs.models.served.transports import open_remote
from stl_programs.testing import Simulator

FAKE = "fake"
"""The model string that asks for them."""


@contextmanager
def fake_model(script: Callable[..., Any], name: str, weights: Path) -> Iterator[Any]:
    """A model that a simulated server answers for by `script`, with random weights in `weights` that a LoRA is trained
    on: its answers do not depend on them.

    A server that is begun again has the port of the first, kept in `weights`, as a journal belongs to an address.
    Raises OSError where another process has it now.
    """
    kept = weights / "port"
    if not kept.is_file():
        random_llama(weights)
    with Simulator(script, [name], port=int(kept.read_text()) if kept.is_file() else 0) as server:
        kept.write_text(str(urlsplit(server.url).port))
        yield open_remote(f"hosted_vllm/{name}", api_base=server.url)


def random_llama(folder: Path, positions: int = 8192) -> Path:
    """A random Llama of bytes with a chat template, in standard Hugging Face format: tokens are bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>",
        chat_template="{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% if m['role'] == "
                      "'assistant' %}<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    ).save_pretrained(folder)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=positions, pad_token_id=0, eos_token_id=1,
        bos_token_id=None)).save_pretrained(folder)
    return folder
