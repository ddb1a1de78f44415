"""Asking a model through a signature: the one place where a question becomes messages, and replies become fields."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import dspy
from dspy.utils.exceptions import AdapterParseError

from signatures import signature_version
from signatures.saving import signature_from, signature_state
from stl_programs import engine
from stl_programs.citizen import observe
from stl_programs.engine import Budget
from stl_programs.errors import ModelError, OutOfRange, SettingError, StlError
from stl_programs.models import Model, load, string_of
from stl_programs.models.base import PLAIN, ReplyOptions, Request
from stl_programs.models.doors.dspy_lm import as_dspy, restored_lm, saved_lm
from stl_programs.models.formats import FORMATS, choose_format, format_name, known_format
from stl_programs.models.registry import adapter_record, check_registered, restore_adapter
from stl_programs.models.thoughts import apart
from stl_programs.models.versions import base_name, base_of, is_adapter
from stl_programs.outside import parsed, said, shown
from stl_programs.records import Usage
from stl_programs.saved_states import SavedPredictor, budget_of, check_draws
from stl_programs.situations import Situation, as_input

TEMPERATURE, MAX_TOKENS = 1.0, 512
"""Where neither a predictor nor its dspy LM says otherwise."""
ENDED = {"length": "were cut at max_tokens", "content_filter": "a content filter withheld", "refusal": "were refused",
         "tool_calls": "called a tool in place of an answer", "function_call": "called a tool in place of an answer",
         "error": "failed on the server"}
"""How a draw ended that is no answer, by its finish reason."""
COMPLETED = re.compile(r"\[\[ ## completed ## \]\]\s*\Z")


def _of_all(name: str) -> Any:
    """An attribute of the first predictor that is set on all of them."""
    def set_all(module: Any, value: Any) -> None:
        for predictor in module.asked:
            setattr(predictor, name, value)

    return property(lambda module: getattr(module.predict, name), set_all)


@dataclass(frozen=True)
class Draw:
    """One draw: the parsed fields, or why there are none; the text that the model wrote, and how it ended.

    `logprob` is the natural log-probability of the whole draw, where it was asked for; `thoughts` what a reasoning
    model thought beforehand.
    """

    fields: dict[str, Any] | None
    missing: str | None = None
    text: str | None = None
    finish_reason: str | None = None
    thoughts: str | None = None
    logprob: float | None = None


class Predictor(dspy.Predict):
    """A signature, the model that is asked, and how. dspy's optimizers, saving and settings see a dspy.Predict.

    Args:
        lm: a LiteLLM string, a dspy LM or a Model; None uses dspy.settings.lm.
        role: whose calls they are, in bills.
        samples: draws of one question; each is parsed by itself.
        temperature, max_tokens: of a draw; None for what a dspy LM was given, else 1.0 and 512.
        format: how the model is asked ("chat", "compact", "lookahead"); None for the model's own.
        logprobs: also ask for the log-probability of every draw.
        budget: of this predictor over a run.

    Example:
        >>> [draw] = await Predictor(env.value_signature, "openai/gpt-4o").draw({"state": "4 6"}, seeds=[0])
    """

    SETTINGS = ("role", "samples", "temperature", "max_tokens", "format", "logprobs")

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, role: str = "predictor", samples: int = 1,
                 temperature: float | None = None, max_tokens: int | None = None, format: str | None = None,
                 logprobs: bool = False, budget: Budget | None = None):
        check_draws(role, samples, temperature, max_tokens, logprobs, budget)
        if not isinstance(signature, (str, type(dspy.Signature))):
            raise SettingError(f"{type(self).__name__}(signature={shown(signature)}): pass a dspy.Signature")
        self._lm: Any = None
        self.adapter: str | None = None
        """The adapter that answers, as BASE@VERSION; `lm` is its base."""
        super().__init__(signature)
        self.lm = lm
        self.role, self.samples, self.temperature = role, samples, temperature
        self.max_tokens, self.format, self.logprobs, self.budget = max_tokens, known_format(format), logprobs, budget

    @classmethod
    def blank(cls) -> Self:
        """One to be filled by `load_state`."""
        return cls(dspy.Signature("state -> answer"))

    # Which model

    @property
    def lm(self) -> Any:
        """The dspy LM of whatever was given; None where dspy.settings.lm is asked."""
        spec = self.adapter or self._lm
        return spec if spec is None or isinstance(spec, dspy.BaseLM) else as_dspy(spec)

    @lm.setter
    def lm(self, lm: Any) -> None:
        """Another base; the name of a registered adapter brings that adapter. Else the one at hand stays: it is
        refused, when it is asked, on a base that is not its own."""
        if not (lm is None or isinstance(lm, (str, dspy.BaseLM)) or hasattr(lm, "complete")):
            raise SettingError(f"lm={shown(lm)}: pass a LiteLLM string, a dspy LM or a Model")
        name = string_of(lm)
        if name is not None and is_adapter(name):
            self.adapter, lm = name, base_of(name) if isinstance(lm, str) else lm
        self._lm = lm

    @property
    def spec(self) -> Any:
        """What `lm` was given as: a string, a dspy LM, a Model or None."""
        return self._lm

    @property
    def name(self) -> str | None:
        """The model string, as tables name it: of the adapter, else of the base."""
        return self.adapter or string_of(self._lm)

    @property
    def model(self) -> Model:
        """The model that is asked. Raises ModelError where there is none, or where the adapter is of another base."""
        if self.adapter is None:
            return load(self._lm)
        base = string_of(self._lm)
        if base is not None and base_name(base) != base_of(self.adapter):
            raise ModelError(f"the adapter {self.adapter} belongs to {base_of(self.adapter)}, and the predictor's lm "
                             f"is {base}; set the base's lm, or set predictor.adapter = None to ask {base} alone")
        return load(self.adapter)

    @property
    def prompt_format(self) -> dspy.Adapter:
        """How the model is asked. Raises AdapterError where its adapter was trained on another format."""
        return choose_format(self.format, self.model)

    @property
    def sampling(self) -> tuple[float, int]:
        """Temperature and tokens of a draw: the predictor's own, else its dspy LM's, else the defaults."""
        given = getattr(self._lm or dspy.settings.lm, "kwargs", None) or {}
        temperature, tokens = self.temperature, self.max_tokens
        if temperature is None:
            temperature = given.get("temperature")
        if tokens is None:
            engine_ = getattr(self._lm or dspy.settings.lm, "engine", None)
            tokens = (given.get("max_tokens") or given.get("max_completion_tokens")
                      or getattr(engine_, "max_tokens", None))
        if self.temperature is None or self.max_tokens is None:  # else they were looked at when they were passed
            check_draws(self.role, self.samples, temperature, tokens, self.logprobs, self.budget)
        return TEMPERATURE if temperature is None else temperature, tokens or MAX_TOKENS

    def _options(self, model: Model) -> ReplyOptions:
        """What is asked for beside text: log-probabilities, and what the dspy LM was given."""
        given = getattr(self._lm or dspy.settings.lm, "kwargs", None) or {}
        stop = given.get("stop") or ()
        if getattr(model, "through_dspy", False) or not (self.logprobs or stop):
            return ReplyOptions(logprobs=True) if self.logprobs else PLAIN
        return ReplyOptions((stop,) if isinstance(stop, str) else tuple(stop), self.logprobs)

    def identity(self) -> tuple[Any, ...]:
        """All that changes an answer beside the question itself: what memories of answers are keyed by."""
        demos = json.dumps([dict(demo) for demo in self.demos], default=str, sort_keys=True) if self.demos else ""
        return (self.name, id(self._lm) if self._lm is not None and not isinstance(self._lm, str) else None,
                signature_version(self.signature), demos, self.format, self.samples, *self.sampling)

    def check_outputs(self, *names: str) -> None:
        """Raises SettingError for a signature without any of these outputs."""
        outputs = self.signature.output_fields
        if not set(names) & set(outputs):
            raise SettingError(f"{self.signature.__name__} has the outputs {', '.join(outputs)}, and a {self.role} "
                               f"reads {' or '.join(names)}: pass a signature that has it")

    def check_reads(self) -> None:
        """Raises ModelError where a model of this process cannot read even the fixed words of the question."""
        model, inputs = self.model, self.signature.input_fields
        reads = getattr(model, "check_reads", None)
        if reads is None or any(field.annotation is not str for field in inputs.values()):
            return
        try:
            reads(self.prompt_format.format(self.signature, self.demos, dict.fromkeys(inputs, "")))
        except OutOfRange as error:
            own, asked = format_name(model.prompt_format), format_name(self.prompt_format)
            raise ModelError(f"{error}, so it cannot be asked in the format {asked!r}: " + (
                f"leave format= out, which asks in its own, {own!r}" if asked != own else
                f"pass the format that it was made for ({', '.join(FORMATS)}), or shorten instructions and "
                "demonstrations to its vocabulary")) from None

    # Asking

    def inputs(self, situation: Situation, **known: Any) -> dict[str, Any]:
        """The signature's inputs, as the environment renders the situation, and what the caller knows beside.

        Raises StlError for an input that neither knows.
        """
        known = {**situation.environment.fields(situation), **known}
        return {name: _rendered(name, field.annotation, known, situation)
                for name, field in self.signature.input_fields.items()}

    async def draw(self, inputs: dict[str, Any], seeds: Sequence[int], *, about: str | None = None) -> list[Draw]:
        """One draw per seed, in one request where the provider takes n. A draw that does not parse is missing and
        spoils no other.

        Args:
            about: the key of the state that the question is about; its cost is noted there.

        Raises ModelError when the model cannot be reached, BudgetSpent where a budget does not cover the call.
        """
        current, model = engine.context(), self.model
        format_ = choose_format(self.format, model)
        temperature, max_tokens = self.sampling
        options = self._options(model)
        with observe(self, model, inputs) as call:
            request = Request(format_.format(self.signature, self.demos, inputs), tuple(seeds), temperature=temperature,
                              max_tokens=max_tokens, options=options, role=self.role, about=about, module=self,
                              budget=self.budget)
            try:
                with call.asking(request):
                    reply = await engine.complete(current, model, request)
                    call.texts = reply.texts
            except OutOfRange as error:
                current.bill(self.role, Usage(out_of_range=1))
                return [Draw(None, str(error))] * len(seeds)
            draws = [self._read(format_, reply, i) for i in range(len(seeds))]
            self._count(draws)
            call.answered(request, reply, draws)
        return draws

    def _count(self, draws: Sequence[Draw]) -> None:
        """Note the draws that are missing, each as what it is."""
        current = engine.context()
        if failures := [draw for draw in draws if draw.fields is None]:
            current.bill(self.role, Usage(parse_failures=len(failures)))
            for draw in failures:
                current.note(f"{self.role} draws that {ENDED.get(draw.finish_reason or '', 'could not be read')}")

    def _read(self, format_: dspy.Adapter, reply: Any, i: int) -> Draw:
        text = reply.texts[i]
        scored = reply.logprobs and reply.logprobs[i]
        reason = reply.finish_reasons and reply.finish_reasons[i]
        answer, thoughts = (text, None) if text is None else apart(text)
        ended = (text, reason, (reply.thoughts and reply.thoughts[i]) or thoughts,
                 sum(logprob for _, logprob in scored) if scored else None)
        if why := _unusable(answer, text, reason):
            return Draw(None, why, *ended)
        try:
            return Draw(format_.parse(self.signature, answer), None, *ended)
        except AdapterParseError as error:
            return Draw(None, next(iter(str(error).splitlines()), "not in the format"), *ended)
        except (ValueError, TypeError, RecursionError) as error:
            return Draw(None, f"not in the format ({type(error).__name__})", *ended)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """One question, as with dspy.Predict."""
        return engine.run_sync(self.aforward(**inputs))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        """One question, as with dspy.Predict: `config={"rollout_id": i}` draws anew.

        Raises ModelError where no draw parses.
        """
        seed = (inputs.pop("config", None) or {}).get("rollout_id") or 0
        seeds = [engine.context().draw_seed(self.role, seed, i) for i in range(self.samples)]
        draws = await self.draw(inputs, seeds)
        parsed = [draw.fields for draw in draws if draw.fields is not None]
        if not parsed:
            raise ModelError(f"{self.name}: none of {len(draws)} replies could be read; the first: {draws[0].missing}")
        return dspy.Prediction.from_completions(parsed, signature=self.signature)

    # Saving

    def reset(self) -> None:
        """Forget demonstrations and traces; the model is configuration, and stays."""
        for name in ("traces", "train", "demos"):
            setattr(self, name, [])

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """Model, adapter, instructions, fields, demos and settings as JSON; no key, no weights."""
        state = super_state(self, json_mode)
        lm = self._lm
        return state | {
            "signature": signature_state(self.signature), "settings": {
                name: getattr(self, name) for name in self.SETTINGS} | {"format": self._spoken()},
            "budget": self.budget.to_dict() if self.budget else None,
            "lm": saved_lm(lm) if isinstance(lm, dspy.BaseLM) else string_of(lm),
            "adapter": None if self.adapter is None else adapter_record(self.adapter)}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> Self:
        """The inverse of `dump_state`. Raises StlError for a signature that cannot be rebuilt, AdapterError for an
        adapter that is gone or was changed, ModelError for a server's address from a file that is not trusted."""
        saved = parsed(SavedPredictor, state, "no saved predictor")
        try:
            signature = signature_from(saved.signature, self.signature)
            budget = None if saved.budget is None else budget_of(saved.budget)
            settings = {name: getattr(self, name) for name in self.SETTINGS} | saved.settings
            if unknown := sorted(set(settings) - set(self.SETTINGS)):
                raise ValueError(f"a predictor has no setting {unknown[0][:100]!r}; load it with the version that "
                                 "saved it")
            Predictor(signature, **settings, budget=budget)
        except (ValueError, TypeError) as error:
            raise StlError(said(error)) from None
        lm = _restored_lm(saved.lm, self._lm, allow_unsafe_lm_state)
        if saved.adapter is not None:
            restore_adapter(saved.adapter, lm)
        for name in ("traces", "train", "demos"):
            setattr(self, name, getattr(saved, name))
        self.signature: type[dspy.Signature] = signature
        for name, setting in settings.items():
            setattr(self, name, setting)
        self.budget, self._lm, self.adapter = budget, lm, None
        if saved.adapter is not None:
            self.adapter = saved.adapter.name
            choose_format(self.format, self.model)
        return self

    def _spoken(self) -> str | None:
        """The name of the format that the model is asked in; the one that was given where it cannot be loaded."""
        try:
            return format_name(self.prompt_format)
        except ModelError:
            return self.format


class Asks:
    """For modules that ask through `predict`: what is said to them is said to all their predictors."""

    predict: Predictor

    @property
    def asked(self) -> list[Predictor]:
        """Every predictor of the module."""
        return [self.predict]

    @property
    def signature(self) -> type[dspy.Signature]:
        """What its predictor asks."""
        signature: type[dspy.Signature] = self.predict.signature
        return signature

    @property
    def lm(self) -> Any:
        """The adapter's name where one answers, else the model as it was given."""
        return self.predict.adapter or self.predict.spec

    @lm.setter
    def lm(self, lm: Any) -> None:
        for predictor in self.asked:
            predictor.adapter, predictor.lm = None, lm

    samples = _of_all("samples")
    temperature = _of_all("temperature")
    max_tokens = _of_all("max_tokens")
    format = _of_all("format")
    budget = _of_all("budget")


def _unusable(answer: str | None, text: str | None, reason: str | None) -> str | None:
    """Why a draw is no answer, before it is parsed. One that was cut is none, but where the format says its end."""
    if reason in ENDED and not (reason == "length" and answer and COMPLETED.search(answer)):
        return f"it {ENDED[reason].removeprefix('were ')}" if reason != "length" else "cut at max_tokens"
    if not text or not text.strip():
        return "an empty reply"
    return "thoughts without an end" if answer is None else "thoughts, and no answer" if not answer.strip() else None


def super_state(predictor: dspy.Predict, json_mode: bool) -> dict[str, Any]:
    """What dspy saves of a predictor beside its signature and its lm."""
    return {"traces": predictor.traces, "train": predictor.train,
            "demos": [dict(demo) if json_mode else demo for demo in predictor.demos]}


def _rendered(name: str, annotation: Any, known: dict[str, Any], situation: Situation) -> Any:
    if name not in known:
        raise StlError(f"{situation.environment.name} knows no input {name!r} of the signature; it knows "
                       f"{', '.join(sorted(known))}: add it in Environment.fields, or take it out of the signature")
    value = known[name]
    if callable(value):
        value = value()
    return as_input(value, annotation)


def _restored_lm(saved: Any, present: Any, unsafe: bool) -> Any:
    """The model that a saved program names; the LM object at hand where that is the same model."""
    if not isinstance(saved, dict):
        if saved is not None:
            check_registered(saved)
        return present if saved is not None and string_of(present) == saved else saved
    if isinstance(present, dspy.BaseLM) and base_name(present.model) == (saved.get("door") or saved.get("model")):
        return present
    return restored_lm(saved, unsafe)
