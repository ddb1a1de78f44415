"""Prompt formats as dspy adapters: how a signature becomes messages, and a reply becomes fields.

A model is trained and served in one format only; both sides call the same class. A predictor names its format ("chat",
"compact", "lookahead"), or leaves it to the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import dspy
from dspy.adapters.utils import apply_output_field_defaults
from dspy.utils.exceptions import AdapterParseError

from signatures import NO_ACTION
from stl_programs.errors import AdapterError, ModelError
from stl_programs.models.base import Model
from stl_programs.models.brought import BROUGHT, brought
from stl_programs.models.parsing import sections, value_of
from stl_programs.models.versions import is_adapter


def _is_lookahead(signature: type[dspy.Signature]) -> bool:
    return {"best_action", "next_state", "rationale", "score"} <= set(signature.output_fields)


class _Quick(dspy.ChatAdapter):
    """ChatAdapter's prompts of inputs that are plain text, written once for a signature but for the inputs themselves.

    What an input says is text: nothing in it is taken for one of dspy's own types.
    """

    _frames: ClassVar[WeakKeyDictionary[type[dspy.Signature], tuple[str, str, str]]] = WeakKeyDictionary()
    """Of a signature: its instructions when these were made, the system message, and how the user's message ends."""

    def format(self, signature: type[dspy.Signature], demos: list[dict[str, Any]],
               inputs: dict[str, Any]) -> list[dict[str, Any]]:
        fields = signature.input_fields
        if demos or not all(type(inputs.get(name)) is str or _texts(inputs.get(name), field.annotation)
                            for name, field in fields.items()):
            return super().format(signature, demos, inputs)
        instructions, system, end = self._frames.get(signature) or ("", "", "")
        if not system or instructions != signature.instructions:
            instructions, system = signature.instructions, self.format_system_message(signature)
            end = self.user_message_output_requirements(signature)
            self._frames[signature] = instructions, system, end
        asked = [f"[[ ## {name} ## ]]\n{value if type(value) is str else json.dumps(value, ensure_ascii=False)}"
                 for name in fields for value in [inputs[name]]]
        return [{"role": "system", "content": system},
                {"role": "user", "content": "\n\n".join([*asked, end]).strip()}]


    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """As ChatAdapter's; a field that is said twice, or after the end, makes a reply that says two things."""
        outputs = signature.output_fields
        try:
            said = sections(completion, outputs)
            fields = {name: value_of(said[name], field.annotation) for name, field in outputs.items() if name in said}
        except ValueError as error:
            raise AdapterParseError("ChatAdapter", signature, completion, message=str(error)) from None
        fields = apply_output_field_defaults(signature, fields)
        if fields.keys() != outputs.keys():
            raise AdapterParseError("ChatAdapter", signature, completion, parsed_result=fields)
        return fields


def _texts(value: Any, annotation: Any) -> bool:
    """Whether an input is a list of texts that travels as JSON, or a whole number."""
    return type(value) is int or (
        type(value) is list and annotation == list[str] and all(type(one) is str for one in value))


class ChatFormat(_Quick):
    """dspy's stock ChatAdapter for every signature, without its silent second call through JSON."""

    name = "chat"

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)


class CompactFormat(dspy.ChatAdapter):
    """One word for the call, the state, and a few separators: for models of few tokens.

    A lookahead reads like a base judgement, `action -> next state . rationale | score`; a terminal one has no action.

    Example:
        user `value 4 6`, assistant `4 * 6 = 24 -> 24 . end | sure`.
    """

    name = "compact"

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def format(self, signature: type[dspy.Signature], demos: list[dict[str, Any]],
               inputs: dict[str, Any]) -> list[dict[str, Any]]:
        outputs = set(signature.output_fields)
        word = "moves" if "actions" in outputs else "value" if outputs == {"rationale", "score"} else "lookahead"
        return [{"role": "user", "content": f"{word} {inputs['state']}"}]

    def format_assistant_message_content(self, signature: type[dspy.Signature], outputs: dict[str, Any],
                                         missing_field_message: str | None = None) -> str:
        if "actions" in signature.output_fields:
            return " ; ".join(outputs["actions"])
        body = [str(outputs[name]) for name in ("rationale",) if name in signature.output_fields]
        if "best_action" in signature.output_fields and outputs["best_action"] != NO_ACTION:
            body.insert(0, f"{outputs['best_action']} -> {outputs['next_state']}")
        return " | ".join([*filter(None, [" . ".join(body)]), str(outputs["score"])])

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        names = signature.output_fields
        if "actions" in names:
            return {"actions": [item.strip() for item in completion.split(";") if item.strip()]}
        *bodies, score = (part.strip() for part in completion.split("|"))
        fields: dict[str, Any] = {"score": score}
        body = bodies[0] if bodies else ""
        if "best_action" in names:
            step, _, rest = body.partition(" . ") if "rationale" in names else (body, "", "")
            action, arrow, next_state = (part.strip() for part in step.partition(" -> "))
            fields |= {"best_action": action, "next_state": next_state} if arrow else {
                "best_action": NO_ACTION, "next_state": NO_ACTION}
            body = rest if arrow else body
        if "rationale" in names:
            fields["rationale"] = body.strip()
        expected = len(bodies) == ("rationale" in names or fields.get("best_action", NO_ACTION) != NO_ACTION)
        if not expected or not all(fields.values()):
            raise AdapterParseError("CompactFormat", signature, completion, message="parts are missing or too many")
        return {name: fields[name] for name in names}


class LookaheadFormat(_Quick):
    """ChatAdapter, but Lookahead replies in the sentences that the paper trains on (figure 11).

    The parser reads the authors' released training data. A reply without exactly one score phrase, or with fields
    missing, does not parse.
    """

    name = "lookahead"
    SCORE = "Thus the correctness score is"

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def format(self, signature: type[dspy.Signature], demos: list[dict[str, Any]],
               inputs: dict[str, Any]) -> list[dict[str, Any]]:
        if not _is_lookahead(signature):
            return super().format(signature, demos, inputs)
        lines = [signature.instructions, ""]
        lines += [f"{name.replace('_', ' ').capitalize()}:\n{inputs[name]}" for name in signature.input_fields]
        return [{"role": "user", "content": "\n".join(lines)}]

    def format_assistant_message_content(self, signature: type[dspy.Signature], outputs: dict[str, Any],
                                         missing_field_message: str | None = None) -> str:
        if not _is_lookahead(signature):
            return super().format_assistant_message_content(signature, outputs, missing_field_message)
        score = f"{self.SCORE} {outputs['score']}."
        if outputs["best_action"] == NO_ACTION:
            return ("I will evaluate the terminal state:\n"
                    f"Reflection of the Terminal State: {outputs['rationale']}\n{score}")
        return ("I will evaluate the best successor state from the current state:\n"
                f"Best Next Action: {outputs['best_action']}\n"
                f"Observation of Best Successor State: {outputs['next_state']}\n"
                f"Reflection of the Best Successor State: {outputs['rationale']}\n{score}")

    TERMINAL = ("I will evaluate the terminal state:", "Reflection of the Terminal State:")
    SUCCESSOR = ("I will evaluate the best successor state from the current state:", "Best Next Action:",
                 "Observation of Best Successor State:", "Reflection of the Best Successor State:")

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        if not _is_lookahead(signature):
            return super().parse(signature, completion)
        body, *scores = completion.split(self.SCORE)
        if len(scores) != 1:
            raise AdapterParseError("LookaheadFormat", signature, completion,
                                    message=f"{len(scores)} score phrases where 1 belongs")
        if (of_terminal := _between(body, self.TERMINAL)) is not None:
            fields = {"best_action": NO_ACTION, "next_state": NO_ACTION, "rationale": of_terminal[1]}
        elif (of_successor := _between(body, self.SUCCESSOR)) is not None:
            fields = dict(zip(("best_action", "next_state", "rationale"), of_successor[1:], strict=True))
        else:
            raise AdapterParseError("LookaheadFormat", signature, completion, message="sentences of the format missing")
        fields = {name: text.strip() for name, text in fields.items()}
        fields["score"] = scores[0].strip().removesuffix(".")
        if not all(fields.values()):
            raise AdapterParseError("LookaheadFormat", signature, completion, message="an empty field")
        try:
            return {name: value_of(fields[name], field.annotation) for name, field in signature.output_fields.items()}
        except ValueError as error:
            raise AdapterParseError("LookaheadFormat", signature, completion, message=str(error)) from None


def _between(text: str, sentences: Sequence[str]) -> list[str] | None:
    """What follows each of `sentences`, which stand in that order, each at the beginning of a line; None where one
    does not."""
    text = text.lstrip()
    if not text.startswith(sentences[0]):
        return None
    found, at = list[str](), len(sentences[0])
    for sentence in sentences[1:]:
        start = text.find(sentence, at)
        while start > at and not _begins_line(text, start):
            start = text.find(sentence, start + 1)
        if start < 0:
            return None
        found.append(text[at:start])
        at = start + len(sentence)
    return None if found[0].strip() else [*found, text[at:]]


def _begins_line(text: str, at: int) -> bool:
    """Whether only white space stands between `at` and the newline before it."""
    while at and text[at - 1] != "\n" and text[at - 1].isspace():
        at -= 1
    return at > 0 and text[at - 1] == "\n"


FORMATS: dict[str, type[dspy.ChatAdapter]] = {
    format_.name: format_ for format_ in (ChatFormat, CompactFormat, LookaheadFormat)}
"""Formats by the name that a predictor, a model directory or an adapter's provenance records."""


def format_name(format_: dspy.Adapter) -> str:
    """The name of a format; that of its class for an adapter of one's own."""
    return getattr(format_, "name", type(format_).__name__)


def known_format(name: str | None) -> str | None:
    """`name`, checked: one of FORMATS, or None for the model's own. Raises ValueError."""
    if name is not None and name not in FORMATS:
        raise ValueError(f"format={name!r}: choose one of {', '.join(FORMATS)}, or None for the model's own")
    return name


def brought_format(directory: Path) -> str | None:
    """The format that the model in `directory` was made for, of its stl_programs.json; None where it says none.

    Raises ModelError for a name that is none of FORMATS.
    """
    name: str | None = brought(directory).get("prompt_format")
    if name is not None and name not in FORMATS:
        raise ModelError(f"{directory / BROUGHT} names the format {name!r}; write one of {', '.join(FORMATS)}")
    return name


def choose_format(name: str | None, model: Model) -> dspy.Adapter:
    """How `model` is asked: in the format `name`, or in its own.

    Raises AdapterError for an adapter that was trained on another format.
    """
    own = model.prompt_format
    if name is None or name == format_name(own):
        return own
    if is_adapter(model.name):
        raise AdapterError(f"{model.name} was trained on the format {format_name(own)!r} and cannot be asked in "
                           f"{name!r}; leave format= out, or train an adapter on {name!r}")
    return FORMATS[name]()
