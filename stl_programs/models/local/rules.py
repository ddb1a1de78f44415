"""How a model directory wants its model decoded (generation_config.json): what `generate` does by it, step for step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.generation import logits_process as process

from stl_programs.errors import ModelError

OFF: dict[str, tuple[Any, ...]] = {
    "sequence_bias": (), "repetition_penalty": (1.0,), "no_repeat_ngram_size": (0,), "bad_words_ids": (),
    "min_length": (0,), "min_new_tokens": (0,), "forced_eos_token_id": (), "remove_invalid_values": (False,),
    "exponential_decay_length_penalty": (), "suppress_tokens": (), "begin_suppress_tokens": ()}
"""What changes every reply, with the values beside None that change nothing."""
SAMPLING: dict[str, tuple[Any, ...]] = {
    "top_h": (), "top_k": (0,), "top_p": (1.0,), "min_p": (0.0,), "typical_p": (1.0,), "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,)}
"""What changes replies at a temperature above 0."""
REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "diversity_penalty": (0.0,), "penalty_alpha": (0.0,),
    "dola_layers": (), "guidance_scale": (1.0,), "constraints": (), "force_words_ids": (), "watermarking_config": (),
    "encoder_repetition_penalty": (1.0,), "encoder_no_repeat_ngram_size": (0,), "stop_strings": (),
    "token_healing": (False,), "max_time": (), "cache_implementation": (
        "dynamic", "dynamic_full", "static", "hybrid", "hybrid_chunked", "sliding_window", "offloaded",
        "offloaded_static", "offloaded_hybrid", "offloaded_hybrid_chunked")}
"""What is not done here, with the values that change no reply."""


@dataclass(frozen=True)
class Rules:
    """What changes the logits of a draw before a token is taken. `settings`: those of OFF and SAMPLING that do."""

    settings: Mapping[str, Any]
    ends: frozenset[int]

    @classmethod
    def of(cls, directory: Path, settings: GenerationConfig, ends: set[int]) -> Rules:
        """Raises ModelError for a setting that asks for another way of decoding."""
        if asked := _set(settings, REFUSED):
            raise ModelError(f"the generation_config.json of {directory} asks for "
                             f"{', '.join(f'{name}={value!r}' for name, value in asked.items())}, which is not done in "
                             "this process; take it out, or serve the model as hosted_vllm/NAME")
        return cls(_set(settings, OFF) | _set(settings, SAMPLING), frozenset(ends))

    def processors(self, prompt: int, limit: int, temperature: float) -> process.LogitsProcessorList:
        """For a draw of at most `limit` tokens after `prompt` of them, in the order of `generate`."""
        ends, found = sorted(self.ends), process.LogitsProcessorList()
        makers = {
            "sequence_bias": process.SequenceBiasLogitsProcessor,
            "repetition_penalty": process.RepetitionPenaltyLogitsProcessor,
            "no_repeat_ngram_size": process.NoRepeatNGramLogitsProcessor,
            "bad_words_ids": lambda value: process.NoBadWordsLogitsProcessor(value, ends),
            "min_length": lambda value: process.MinLengthLogitsProcessor(value, ends),
            "min_new_tokens": lambda value: process.MinNewTokensLengthLogitsProcessor(prompt, value, ends),
            "forced_eos_token_id": lambda value: process.ForcedEOSTokenLogitsProcessor(prompt + limit, value),
            "remove_invalid_values": lambda value: process.InfNanRemoveLogitsProcessor(),
            "exponential_decay_length_penalty": lambda value: process.ExponentialDecayLengthPenalty(
                value, ends, prompt),
            "suppress_tokens": process.SuppressTokensLogitsProcessor,
            "begin_suppress_tokens": lambda value: process.SuppressTokensAtBeginLogitsProcessor(value, prompt)}
        found.extend(make(self.settings[name]) for name, make in makers.items() if name in self.settings)
        if temperature and any(name in self.settings for name in SAMPLING):
            warpers = {
                "top_h": process.TopHLogitsWarper, "top_k": process.TopKLogitsWarper,
                "top_p": process.TopPLogitsWarper, "min_p": process.MinPLogitsWarper,
                "typical_p": process.TypicalLogitsWarper, "epsilon_cutoff": process.EpsilonLogitsWarper,
                "eta_cutoff": process.EtaLogitsWarper}
            found.append(process.TemperatureLogitsWarper(float(temperature)))
            found.extend(make(self.settings[name]) for name, make in warpers.items() if name in self.settings)
            found.append(process.TemperatureLogitsWarper(1 / float(temperature)))
        return found


def _set(settings: GenerationConfig, names: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    found = {name: getattr(settings, name, None) for name in names}
    return {name: value for name, value in found.items()
            if value is not None and value not in names[name] and value not in ([], {})}
