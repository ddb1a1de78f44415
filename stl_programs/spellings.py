"""The ways in which one text may be written: percent-encoded, escaped for JSON, HTML or Python, in base64, in hex."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from html.entities import codepoint2name

_RUN = re.compile("[A-Za-z0-9]*")
_NESTED = 3
"""How often an escape may itself be escaped."""
_REST = "(?:[A-Za-z0-9+/_-]?(?:=|%3[dD]){1,2})?"
"""The end of what was packed, where it ends with the text."""


def pattern(text: str) -> str:
    """A regular expression that finds `text` in any of its spellings."""
    ways = ["".join(map(_character, text)), f"(?i:{text.encode(errors='surrogatepass').hex()})"]
    return "|".join([*ways, *("".join(map(_character, core)) + _REST for core in _packed(text))])


def marks(text: str) -> list[str]:
    """Texts of which one stands in whatever the pattern finds: to look for one of them is much faster."""
    packed = text.encode(errors="surrogatepass").hex()
    return [_longest_run(text), packed, packed.upper(), *map(_longest_run, _packed(text))]


def _packed(text: str) -> list[str]:
    """What of base64 depends on `text` alone, wherever in what was packed it stands."""
    data, found = text.encode(errors="surrogatepass"), list[str]()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        last = -1 if (before + len(data)) % 3 else None
        found.append(whole[(0, 2, 3)[before]:last])
    return found


@lru_cache(maxsize=512)
def _character(one: str) -> str:
    """The spellings of one character."""
    if one.isascii() and one.isalnum():
        return one
    if one.isspace():
        return r"(?:\s|\\{1,8}[nrt]|\+|%(?:25){0,3}(?:0[9aAdD]|20)){1,4}"
    encoded = one.encode(errors="surrogatepass")
    percent = "".join(f"%(?:25){{0,{_NESTED}}}{byte:02x}" for byte in encoded)
    in_bytes = "".join(rf"\\{{1,8}}x{byte:02x}" for byte in encoded)
    units = one.encode("utf-16-be", errors="surrogatepass")
    in_json = "".join(rf"\\{{1,8}}u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    ways = [rf"\\{{0,8}}{re.escape(one)}", percent, in_json, in_bytes,
            f"&(?:amp;){{0,{_NESTED}}}#(?:0*{ord(one)}|x0*{ord(one):x});"]
    if one == "'":
        ways.append(f"&(?:amp;){{0,{_NESTED}}}apos;")
    if (name := codepoint2name.get(ord(one))) is not None:
        ways.append(f"&(?:amp;){{0,{_NESTED}}}{name};")
    if one in "+-":
        ways += ["[+-]", "%2b", " "]
    if one in "/_":
        ways += ["[/_]", r"%2f", r"\\{1,8}/"]
    return f"(?i:{'|'.join(ways)})"


def _longest_run(text: str) -> str:
    """The longest run of characters that all spellings share."""
    return max(_RUN.findall(text), key=len)
