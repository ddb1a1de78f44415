"""An encyclopedia: pages by title, and the titles that are most like what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stl_programs.environments.retrieval import Index

SENTENCES_SHOWN = 5
"""Of a page that was found."""
SIMILAR = 5
IN_MEMORY = 5000
"""Of at most so many pages the index is built anew each time, and not kept on disk."""


class Wiki:
    """Pages of files, searched by their titles and beginnings.

    Args:
        pages: the sentences of each page, by its title.
        cache: the folder that keeps the index of many pages.

    Example:
        >>> Wiki({"Ember": ["Ember is a river."]}).page("ember")
        ('Ember', ('Ember is a river.',))
    """

    def __init__(self, pages: Mapping[str, Sequence[str]], cache: Path | None = None):
        self.pages = {title: tuple(sentence.strip() for sentence in sentences if sentence.strip())
                      for title, sentences in pages.items()}
        self.titles = tuple(sorted(self.pages))
        self._by_name = {_name(title): title for title in reversed(self.titles)}
        self.cache = cache
        self._index: Index | None = None

    def page(self, entity: str) -> tuple[str, tuple[str, ...]] | None:
        """Title and sentences of the page of that title, whatever its case and spaces; None where there is none."""
        title = self._by_name.get(_name(entity))
        return None if title is None else (title, self.pages[title])

    def similar(self, entity: str, most: int = SIMILAR) -> list[str]:
        """The titles whose pages have most to do with it, best first."""
        if self._index is None:
            texts = (f"{title} {title} {' '.join(self.pages[title][:3])}" for title in self.titles)
            folder = self.cache if len(self.titles) > IN_MEMORY else None
            self._index = Index.kept(texts, folder, f"{len(self.titles)} pages {self.digest}")
        return [self.titles[number] for number in self._index.search(entity, most)]

    @property
    def digest(self) -> str:
        """A hash of titles and texts."""
        import hashlib

        hashed = hashlib.blake2b(digest_size=6)
        for title in self.titles:
            hashed.update(f"{title}\n{self.pages[title]}\n".encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def mentioned(self, text: str) -> list[str]:
        """The titles that stand in a text word for word, in the order in which they stand there."""
        words = text.split()
        found: dict[str, None] = {}
        for start in range(len(words)):
            for length in range(min(6, len(words) - start), 0, -1):
                title = self._by_name.get(_name(" ".join(words[start:start + length]).strip(".,;:!?\"'()")))
                if title is not None:
                    found.setdefault(title)
                    break
        return list(found)


def _name(title: str) -> str:
    return " ".join(title.casefold().split())
