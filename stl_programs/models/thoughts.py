"""What a reasoning model thinks before it answers, apart from the answer."""

from __future__ import annotations

import re

_WORDS = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)"
_MARK = re.compile(rf"<(?P<close>/)?{_WORDS}>|\[(?P<close2>/)?THINK\]|(?P<kimi>◁/?)think▷", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>")
_END = re.compile(r"<\|(?:end|return|call|start)\|>")
MARKS = ("<", "[THINK", "[/THINK", "◁")


def apart(text: str) -> tuple[str | None, str | None]:
    """The answer and the thoughts of a draw, in one pass. An answer is None where the thoughts do not end: nothing of
    a draft is an answer. Thoughts may stand first, in the middle, or without their opening mark (a template's).

    Example:
        >>> apart("<think>4, or 7?</think>7")
        ('7', '4, or 7?')
    """
    if not any(mark in text for mark in MARKS):
        return text, None
    if "<|channel|>" in text:
        return _channels(text)
    answer, thoughts, at, open_ = list[str](), list[str](), 0, False
    for mark in _MARK.finditer(text):
        closes = bool(mark["close"] or mark["close2"] or mark["kimi"] == "◁/")
        piece, at = text[at:mark.start()], mark.end()
        if closes and not open_:  # the prompt held the opening mark: all before it was thought
            thoughts += [*answer, piece]
            answer = []
        else:
            (thoughts if open_ else answer).append(piece)
        open_ = not closes
    (thoughts if open_ else answer).append(text[at:])
    thought = "".join(thoughts).strip() or None
    return None if open_ else "".join(answer), thought


def _channels(text: str) -> tuple[str | None, str | None]:
    """Of a text in channels, the last "final" one is the answer."""
    answer, thoughts = None, list[str]()
    marks = list(_CHANNEL.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        piece = _END.split(text[mark.end():following.start() if following else len(text)], maxsplit=1)[0]
        if mark["name"] == "final":
            answer = piece
        else:
            thoughts.append(piece)
    return answer, "\n".join(thoughts).strip() or None
