"""What dspy sees of our calls: usage, history, callbacks, traces, each only where a user wants it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import dspy
from dspy.clients.base_lm import record_history
from dspy.utils.callback_context import ACTIVE_CALL_ID

from stl_programs import engine
from stl_programs.models import Model, Reply
from stl_programs.models.base import Request

SHOWN_CALLS = 200
"""Calls of one search that callbacks (and so MLflow's traces) are told of; a large search would drown them."""


@contextmanager
def observe(predictor: Any, model: Model, request: Request, inputs: dict[str, Any]
            ) -> Iterator[Callable[[Reply, Sequence[Any]], None]]:
    """Around one call: callbacks before and after it; the function that is yielded notes what it answered."""
    callbacks = [*dspy.settings.get("callbacks", []), *predictor.callbacks]
    shown = bool(callbacks) and engine.context().shows(SHOWN_CALLS)
    outcome: list[Any] = []

    def answered(reply: Reply, draws: Sequence[Any]) -> None:
        outcome[:] = [reply, draws]
        _note(predictor, model, request, inputs, reply, draws)

    if not shown:
        yield answered
        return
    call, lm_call = uuid.uuid4().hex, uuid.uuid4().hex
    outer = ACTIVE_CALL_ID.get()
    _tell(callbacks, "on_module_start", call_id=call, instance=predictor, inputs={"kwargs": inputs})
    ACTIVE_CALL_ID.set(call)
    _tell(callbacks, "on_lm_start", call_id=lm_call, instance=predictor.lm or dspy.settings.lm,
          inputs={"messages": request.messages, "n": len(request.seeds)})
    ACTIVE_CALL_ID.set(lm_call)
    failed: BaseException | None = None
    try:
        yield answered
    except BaseException as error:
        failed = error
        raise
    finally:
        texts = outcome[0].texts if outcome else None
        fields = [draw.fields for draw in outcome[1]] if outcome else None
        ACTIVE_CALL_ID.set(call)
        _tell(callbacks, "on_lm_end", call_id=lm_call, outputs=texts, exception=failed)
        ACTIVE_CALL_ID.set(outer)
        _tell(callbacks, "on_module_end", call_id=call, outputs=fields, exception=failed)


def _tell(callbacks: Sequence[Any], event: str, **what: Any) -> None:
    """A callback that fails is the user's to see, and spoils no search."""
    for callback in callbacks:
        try:
            getattr(callback, event)(**what)
        except Exception as error:
            engine.context().note(f"the callback {type(callback).__name__} failed: {error}")


def _note(predictor: Any, model: Model, request: Request, inputs: dict[str, Any], reply: Reply,
          draws: Sequence[Any]) -> None:
    if dspy.settings.trace is not None and dspy.settings.max_trace_size > 0:
        trace = dspy.settings.trace
        trace.extend((predictor, inputs, dspy.Prediction(**draw.fields)) for draw in draws if draw.fields)
        del trace[:-dspy.settings.max_trace_size]
    if dspy.settings.disable_history or getattr(model, "through_dspy", False):
        return  # dspy notes the calls of its own LMs
    client = predictor.spec or dspy.settings.lm
    record_history(client if isinstance(client, dspy.BaseLM) else predictor, {
        "prompt": None, "messages": request.messages, "outputs": [text or "" for text in reply.texts],
        "kwargs": {"temperature": request.temperature, "max_tokens": request.max_tokens, "n": len(request.seeds)},
        "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens,
                  "total_tokens": reply.prompt_tokens + reply.completion_tokens},
        "cost": None, "timestamp": datetime.now().isoformat(), "uuid": uuid.uuid4().hex, "model": model.name})
