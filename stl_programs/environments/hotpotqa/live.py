"""A live MediaWiki behind the interface of an encyclopedia: bounded, in turn, and asked nothing twice."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from stl_programs.construct import Count, NotNegative, Positive, checked
from stl_programs.environments.hotpotqa.wiki import SIMILAR
from stl_programs.environments.remote import Web
from stl_programs.errors import StlError
from stl_programs.outside import parsed, read_json, write_atomically

API = "https://en.wikipedia.org/w/api.php"
LARGEST_CACHE = 2**30
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


class _Part(BaseModel):
    """A part of an answer; what is not read is not named."""

    model_config = ConfigDict(strict=True)


class _Page(_Part):
    title: str
    extract: str = ""
    missing: bool = False
    invalid: bool = False


class _Hit(_Part):
    title: str


class _Query(_Part):
    pages: list[_Page] = []
    search: list[_Hit] = []


class _Error(_Part):
    code: str = ""
    info: str = ""


class Reply(_Part):
    """An answer of `action=query` in format version 2."""

    query: _Query = _Query()
    error: _Error | None = None


class Kept(_Part):
    """The file of answers."""

    wiki: str
    answers: dict[str, list[Any] | None]


class LiveWiki:
    """Pages and searches of a MediaWiki, over its own API.

    Requests are sent one every `interval` seconds at most; what was answered is kept, and in `cache` on disk, so that a
    resumed run sees what the first one saw. Busy servers are asked again by the engine (`Environment.retries`).

    Args:
        url: of its `api.php`.
        interval: seconds between the starts of two requests.
        seconds: that one of them may take.
        most: answers that are kept.
        cache: a JSON file of answers; it belongs to one wiki.
        contact: who asks, for the User-Agent, as wikis wish: a URL or an address.

    Example:
        >>> env = HotpotQA("hotpot_dev_v1_simplified.json", wiki=LiveWiki(cache="wiki.json"))
    """

    @checked
    def __init__(self, url: str = API, *, interval: NotNegative = 0.1, seconds: Positive = 20.0, most: Count = 20_000,
                 cache: str | Path | None = None, contact: str = ""):
        self.web = Web(url, "a MediaWiki API", seconds, f"stl-programs ({contact})" if contact else "stl-programs")
        self.interval, self.most = interval, most
        self.cache = Path(cache) if cache else None
        self.name = f"live {self.web.url}"
        self._known: dict[str, Any] = {}
        self._next = 0.0
        if self.cache is not None and self.cache.exists():
            found = parsed(Kept, read_json(self.cache, LARGEST_CACHE, "a cache of wiki answers"),
                           f"{self.cache} is not a cache of wiki answers")
            if found.wiki != self.name:
                raise StlError(f"{self.cache} holds answers of {found.wiki}, not of {self.name}; give another file")
            self._known = dict(found.answers)

    async def apage(self, entity: str) -> tuple[str, tuple[str, ...]] | None:
        """Title and sentences of a page, redirects followed; None where there is none."""
        found = await self._once(f"page {entity}", lambda: self._page(entity))
        return None if found is None else (found[0], tuple(found[1]))

    async def asimilar(self, entity: str) -> list[str]:
        """The titles that its search finds first."""
        return list(await self._once(f"search {entity}", lambda: self._similar(entity)))

    async def _page(self, entity: str) -> list[Any] | None:
        reply = await self.web.read(Reply, "", action="query", format="json", formatversion="2", prop="extracts",
                                    explaintext="1", exsectionformat="plain", redirects="1", titles=entity)
        self._check(reply)
        page = next((page for page in reply.query.pages if not (page.missing or page.invalid)), None)
        if page is None or not page.extract.strip():
            return None
        return [page.title, sentences(page.extract)]

    async def _similar(self, entity: str) -> list[str]:
        reply = await self.web.read(Reply, "", action="query", format="json", formatversion="2", list="search",
                                    srlimit=str(SIMILAR), srprop="", srsearch=entity)
        self._check(reply)
        return [hit.title for hit in reply.query.search][:SIMILAR]

    def _check(self, reply: Reply) -> None:
        if reply.error is not None:
            raise StlError(f"{self.web.what} at {self.web.url} refuses: {reply.error.info or reply.error.code}")

    async def _once(self, key: str, ask: Any) -> Any:
        """What was answered before, or the answer in its turn."""
        if key not in self._known:
            loop = asyncio.get_running_loop()
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.interval
            if start > now:
                await asyncio.sleep(start - now)
            found = await ask()
            self._known[key] = found
            while len(self._known) > self.most:
                del self._known[next(iter(self._known))]
            if self.cache is not None:
                content = json.dumps({"wiki": self.name, "answers": self._known}, ensure_ascii=False)
                await loop.run_in_executor(None, write_atomically, self.cache, [content.encode("utf-8", "replace")],
                                           "the cache")
        return self._known[key]

    async def aclose(self) -> None:
        """Close the connections."""
        await self.web.aclose()


def sentences(text: str) -> list[str]:
    """The sentences of a plain text, paragraph by paragraph; headings of sections are left out."""
    paragraphs = [line.strip() for line in text.splitlines() if line.strip()]
    return [sentence for paragraph in paragraphs if paragraph.endswith((".", "!", "?", '"'))
            for sentence in _END.split(paragraph)]
