"""What dspy sees of our calls: history, callbacks, traces, each only where a user wants it.

Tokens are told to dspy's usage tracker where they are paid (`engine.calls`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import dspy
from dspy.clients.base_lm import record_history
from dspy.utils.callback_context import ACTIVE_CALL_ID

from stl_programs import engine
from stl_programs.models import Model, Reply
from stl_programs.models.base import Request
from stl_programs.models.doors.dspy_lm import as_dspy

SHOWN_CALLS = 200
"""Calls of one run that callbacks (and so MLflow's traces) are told of; a large search would drown them."""
Answered = Callable[[Reply, Sequence[Any]], None]
"""Told of a call's reply, and of its draws."""


@contextmanager
def observe(predictor: Any, model: Model, request: Request, inputs: dict[str, Any]) -> Iterator[Answered]:
    """Around one call: callbacks before and after it; the function that is yielded notes what it answered.

    A predictor that was called like a dspy.Predict is shown by dspy itself, and of its calls the model's part here.
    """
    by_dspy = getattr(model, "through_dspy", False)
    asked_alone = (dspy.settings.caller_modules or [None])[-1] is predictor
    of_all = dspy.settings.get("callbacks", [])
    lm = _lm_of(predictor)
    of_module = [] if asked_alone else [*of_all, *predictor.callbacks]
    of_lm = [] if by_dspy else [*of_all, *getattr(lm, "callbacks", [])]
    outcome: list[Any] = []

    def answered(reply: Reply, draws: Sequence[Any]) -> None:
        outcome[:] = [reply, draws]
        _note(predictor, model, request, inputs, reply, draws)

    if not (of_module or of_lm or (by_dspy and of_all)):
        yield answered
    elif not (asked_alone or engine.context().run.shows(SHOWN_CALLS)):
        with dspy.context(callbacks=[]):  # what a dspy LM tells by itself is bounded too
            yield answered
    else:
        with (_told(of_module, "module", predictor, {"kwargs": inputs, "role": predictor.role}, outcome, _fields),
              _told(of_lm, "lm", as_dspy(lm) if of_lm and not isinstance(lm, dspy.BaseLM) else lm,
                    {"messages": request.messages, "n": len(request.seeds)}, outcome, _texts)):
            yield answered


@contextmanager
def _told(callbacks: Sequence[Any], what: str, instance: Any, inputs: dict[str, Any], outcome: list[Any],
          read: Callable[[list[Any]], Any]) -> Iterator[None]:
    """Tell `callbacks` when something starts and how it ends."""
    if not callbacks:
        yield
        return
    call, outer = uuid.uuid4().hex, ACTIVE_CALL_ID.get()
    _tell(callbacks, f"on_{what}_start", call_id=call, instance=instance, inputs=inputs)
    ACTIVE_CALL_ID.set(call)
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        ACTIVE_CALL_ID.set(outer)
        _tell(callbacks, f"on_{what}_end", call_id=call, outputs=read(outcome) if outcome else None, exception=failed)


def _fields(outcome: list[Any]) -> list[Any]:
    return [draw.fields for draw in outcome[1]]


def _texts(outcome: list[Any]) -> list[str | None]:
    return list(outcome[0].texts)


def _tell(callbacks: Sequence[Any], event: str, **what: Any) -> None:
    """A callback that fails is the user's to see, and spoils no search."""
    for callback in callbacks:
        try:
            getattr(callback, event)(**what)
        except Exception as error:
            engine.context().note(f"the callback {type(callback).__name__} failed: {error}")


def _lm_of(predictor: Any) -> Any:
    """What is asked, as it was given: a dspy LM, a Model, or a name."""
    return predictor.adapter or predictor.spec or dspy.settings.lm


def _keeper(predictor: Any) -> Any:
    """Whose history a call belongs to beside that of the modules around it: the dspy LM's, else the predictor's."""
    lm = predictor.spec or dspy.settings.lm
    if isinstance(lm, dspy.BaseLM):
        return lm
    around = dspy.settings.caller_modules or []
    return SimpleNamespace(history=[]) if any(one is predictor for one in around) else predictor


def _note(predictor: Any, model: Model, request: Request, inputs: dict[str, Any], reply: Reply,
          draws: Sequence[Any]) -> None:
    if dspy.settings.trace is not None and dspy.settings.max_trace_size > 0:
        trace = dspy.settings.trace
        trace.extend((predictor, inputs, dspy.Prediction(**draw.fields)) for draw in draws if draw.fields)
        del trace[:-dspy.settings.max_trace_size]
    if dspy.settings.disable_history or getattr(model, "through_dspy", False):
        return  # dspy notes the calls of its own LMs
    prices = model.prices()
    record_history(_keeper(predictor), {
        "prompt": None, "messages": request.messages, "outputs": [text or "" for text in reply.texts],
        "kwargs": {"temperature": request.temperature, "max_tokens": request.max_tokens, "n": len(request.seeds)},
        "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens,
                  "total_tokens": reply.prompt_tokens + reply.completion_tokens},
        "cost": prices and prices.cost(reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens),
        "timestamp": datetime.now().isoformat(), "uuid": uuid.uuid4().hex, "model": model.name})
