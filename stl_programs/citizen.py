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
from stl_programs.secrets import cleaned

SHOWN_CALLS = 200
"""Calls of one run that callbacks (and so MLflow's traces) are told of; a large search would drown them."""


@contextmanager
def observe(predictor: Any, model: Model, inputs: dict[str, Any]) -> Iterator[Observed]:
    """Around one call, from the formatting of its prompt to the reading of its replies: what callbacks are told.

    A predictor that was called like a dspy.Predict is shown by dspy itself, and its calls are not counted here.
    """
    of_all = dspy.settings.get("callbacks", [])
    call = Observed(predictor, model, inputs)
    if not (of_all or predictor.callbacks or getattr(call.lm, "callbacks", [])):
        yield call
        return
    alone = (dspy.settings.caller_modules or [None])[-1] is predictor
    if not (alone or engine.context().run.shows(SHOWN_CALLS)):
        call.shown = False
        with dspy.context(callbacks=[]):  # of what dspy's own formats and LMs would tell, too
            yield call
        return
    with _told([] if alone else [*of_all, *predictor.callbacks], "module", predictor,
               {"kwargs": inputs, "role": predictor.role}, lambda: [draw.fields for draw in call.draws]):
        yield call


class Observed:
    """One call as dspy sees it."""

    def __init__(self, predictor: Any, model: Model, inputs: dict[str, Any]):
        self.predictor, self.model, self.inputs = predictor, model, inputs
        self.lm: Any = predictor.adapter or predictor.spec or dspy.settings.lm
        """What is asked, as it was given: a dspy LM, a Model or a name."""
        self.through_dspy: bool = getattr(model, "through_dspy", False)
        self.shown = True
        self.texts: list[str | None] = []
        self.draws: Sequence[Any] = ()

    @contextmanager
    def asking(self, request: Request) -> Iterator[None]:
        """Around the model's part of it. LMs that dspy itself asks say so themselves."""
        callbacks = [*dspy.settings.get("callbacks", []), *getattr(self.lm, "callbacks", [])]
        if not (self.shown and callbacks) or self.through_dspy:
            yield
            return
        lm = self.lm if isinstance(self.lm, dspy.BaseLM) else as_dspy(self.lm)
        with _told(callbacks, "lm", lm, {"messages": request.messages, "n": len(request.seeds)}, lambda: self.texts):
            yield

    def answered(self, request: Request, reply: Reply, draws: Sequence[Any]) -> None:
        """Note in traces and histories what it answered."""
        self.draws = draws
        if dspy.settings.trace is not None and dspy.settings.max_trace_size > 0:
            trace = dspy.settings.trace
            trace.extend((self.predictor, self.inputs, dspy.Prediction(**draw.fields)) for draw in draws if draw.fields)
            del trace[:-dspy.settings.max_trace_size]
        if not (dspy.settings.disable_history or self.through_dspy):
            record_history(self._keeper(), _entry(self.model, request, reply))

    def _keeper(self) -> Any:
        """Whose history it belongs to beside that of the modules around it: the dspy LM's, else the predictor's."""
        if isinstance(self.lm, dspy.BaseLM):
            return self.lm
        around = dspy.settings.caller_modules or []
        return SimpleNamespace(history=[]) if any(one is self.predictor for one in around) else self.predictor


@contextmanager
def _told(callbacks: Sequence[Any], what: str, instance: Any, inputs: dict[str, Any], outputs: Callable[[], Any]
          ) -> Iterator[None]:
    """Tell `callbacks` when something starts and how it ends."""
    if not callbacks:
        yield
        return
    call, outer = uuid.uuid4().hex, ACTIVE_CALL_ID.get()
    _tell(callbacks, f"on_{what}_start", call_id=call, instance=instance, inputs=cleaned(inputs))
    ACTIVE_CALL_ID.set(call)
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        ACTIVE_CALL_ID.set(outer)
        _tell(callbacks, f"on_{what}_end", call_id=call, outputs=None if failed else outputs(), exception=failed)


def _entry(model: Model, request: Request, reply: Reply) -> dict[str, Any]:
    """One call as dspy's histories hold it."""
    prices = model.prices()
    return {
        "prompt": None, "messages": cleaned(request.messages), "outputs": [text or "" for text in reply.texts],
        "kwargs": {"temperature": request.temperature, "max_tokens": request.max_tokens, "n": len(request.seeds)},
        "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens,
                  "total_tokens": reply.prompt_tokens + reply.completion_tokens},
        "cost": prices and prices.cost(reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens),
        "timestamp": datetime.now().isoformat(), "uuid": uuid.uuid4().hex, "model": model.name}


def _tell(callbacks: Sequence[Any], event: str, **what: Any) -> None:
    """A callback that fails is the user's to see, and spoils no search."""
    for callback in callbacks:
        try:
            getattr(callback, event)(**what)
        except Exception as error:
            engine.context().note(f"the callback {type(callback).__name__} failed: {error}")
