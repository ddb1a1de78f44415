"""Every architecture on the list answers, several prompts and draws at once, as transformers' `generate` does alone."""

from __future__ import annotations

import pytest

from stl_programs.models.local.model_directory import ModelDirectory
from tests.stl_programs.models.local.directories import make, ours, theirs

PROMPTS = ["hi", "value 4 5 6", "value 4 5 6 10 and more of it, so that a window is passed", "x" * 60]
OTHER_NAMES = dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                             "num_key_value_heads", "max_position_embeddings"), ...)
GPT = OTHER_NAMES | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}
SHARED = MOE | {"shared_expert_intermediate_size": 32}
DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "kv_lora_rank": 16, "q_lora_rank": 16,
            "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "moe_intermediate_size": 32,
            "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
TOGETHER = {
    "llama": {}, "qwen2": {}, "qwen3": {"head_dim": 8}, "gemma": {"head_dim": 8}, "phi": {"num_key_value_heads": 4},
    "phi3": {"sliding_window": None}, "gpt2": GPT, "gpt_neox": {}, "gptj": GPT | {"rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "falcon": {"alibi": False},
    "starcoder2": {"sliding_window": None}, "gpt_bigcode": GPT, "stablelm": {}, "olmo": {}, "olmo2": {}, "cohere": {},
    "granite": {}, "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": SHARED, "qwen3_moe": MOE, "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4}, "deepseek_v2": DEEPSEEK | {"head_dim": 8}, "deepseek_v3": DEEPSEEK,
    "nemotron": {}, "glm": {"head_dim": 8}, "glm4": {"head_dim": 8}, "smollm3": {}, "helium": {"head_dim": 8},
    "ernie4_5": {"head_dim": 8}, "persimmon": {}, "seed_oss": {"head_dim": 8}, "arcee": {}, "apertus": {},
    "bitnet": {}, "bloom": {"n_layer": 2, "n_head": 4, "num_hidden_layers": ..., "num_attention_heads": ...}}
APART = {
    "mistral": {"sliding_window": 8}, "gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "num_hidden_layers": 6}, "olmo3": {"sliding_window": 8},
    "cohere2": {"sliding_window": 8, "head_dim": 8}, "exaone4": {"sliding_window": 8},
    "gpt_neo": OTHER_NAMES | {"hidden_size": 32, "max_position_embeddings": 512, "num_layers": 2, "num_heads": 4,
                              "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mpt": OTHER_NAMES | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512,
                          "max_position_embeddings": 512},
    "gpt_oss": {"num_local_experts": 4, "sliding_window": 8, "head_dim": 8},
    "llama4_text": {"num_local_experts": 2, "attention_chunk_size": 8, "head_dim": 8, "intermediate_size_mlp": 64}}
ALONE = {
    "mamba": {"state_size": 8}, "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "falcon_mamba": {"state_size": 8}, "rwkv": {"attention_hidden_size": 32, "context_length": 512},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "num_hidden_layers": 3, "head_dim": 8},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4,
              "use_mamba_kernels": False},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 2,
                                 "num_experts_per_tok": 1, "shared_intermediate_size": 32},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "head_dim": 8}, "lfm2": {"layer_types": ["conv", "full_attention"]},
    "minimax": {"num_local_experts": 2, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": SHARED | {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
                            "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}}
KINDS = [(kind, options, reading) for reading, kinds in (
    ("together", TOGETHER), ("apart", APART), ("alone", ALONE)) for kind, options in kinds.items()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "options", "reading"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_an_architecture_answers_as_generate_does(tmp_path, kind, options, reading):
    folder = make(tmp_path / kind, kind, **options)
    assert ours(folder, PROMPTS) == [[text, text] for text in theirs(folder, PROMPTS)]
    assert ModelDirectory(f"local/{kind}", folder).reads(100) == reading
