"""Okapi BM25 in the arithmetic of Lucene, so that documents come in the same order: ties too.

Of the kept libraries none gives that order (bm25s weighs by true lengths and breaks ties by chance), so the index is
numpy arrays of our own: for each term the documents that hold it and how often, and for each document its length as the
one byte that Lucene keeps of it.
"""

from __future__ import annotations

import io
import json
from array import array
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stl_programs.environments.retrieval.analyzer import analyze
from stl_programs.errors import TaskError
from stl_programs.outside import CONFIG_BYTES, Strict, one_line, parsed, read_json, write_atomically

if TYPE_CHECKING:
    import numpy as np

K1, B = 0.9, 0.4
VERSION = 1
"""Of the files on disk, and of the analyzer that made them."""
ABOUT, ARRAYS = "index.json", ("starts", "documents", "counts", "lengths")
LARGEST = 2**31
"""Bytes of the list of terms."""


class Index:
    """Documents by the terms that they hold.

    Args:
        terms: the number of each term.
        starts: shape [terms + 1]; the postings of term t are starts[t] to starts[t + 1].
        documents, counts: shape [postings]; the document of each posting, ascending within a term, and how often the
            term stands in it.
        lengths: shape [documents]; the length of each in terms, quantised.
        total: terms of all documents together, before they were quantised.

    Example:
        >>> Index.build(["a red mug", "a blue mug"]).search("red mugs", 2)
        [0, 1]
    """

    def __init__(self, terms: dict[str, int], starts: np.ndarray, documents: np.ndarray, counts: np.ndarray,
                 lengths: np.ndarray, total: int):
        import numpy as np

        self.terms, self.starts, self.documents, self.counts = terms, starts, documents, counts
        self.lengths, self.total = lengths, total
        mean = np.float32(total / max(len(lengths), 1)) or np.float32(1)
        k1, b = np.float32(K1), np.float32(B)
        self._norms = np.float32(1) / (k1 * ((np.float32(1) - b) + b * lengths.astype(np.float32) / mean))

    @classmethod
    def build(cls, texts: Iterable[str]) -> Index:
        """The index of `texts`, in their order."""
        import numpy as np

        terms: dict[str, int] = {}
        of_term, of_document, counts, lengths = array("i"), array("i"), array("i"), array("i")
        for document, text in enumerate(texts):
            words = analyze(text)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                of_term.append(terms.setdefault(word, len(terms)))
                of_document.append(document)
                counts.append(count)
        term_of = np.frombuffer(of_term, np.int32) if of_term else np.zeros(0, np.int32)
        order = np.argsort(term_of, kind="stable")
        starts = np.zeros(len(terms) + 1, np.int64)
        np.cumsum(np.bincount(term_of, minlength=len(terms)), out=starts[1:])
        true = np.frombuffer(lengths, np.int32) if lengths else np.zeros(0, np.int32)
        return cls(terms, starts, np.frombuffer(of_document, np.int32)[order] if of_term else term_of,
                   np.frombuffer(counts, np.int32)[order] if of_term else term_of,
                   _quantised()[np.searchsorted(_quantised(), true, side="right") - 1], int(true.sum()))

    def search(self, query: str, most: int = 50) -> list[int]:
        """The documents that hold a term of `query`, best first; of equally good ones the earlier first."""
        return [document for document, _ in self.scored(query, most)]

    def scored(self, query: str, most: int = 50) -> list[tuple[int, float]]:
        """The same with their scores."""
        import numpy as np

        scores = np.zeros(len(self.lengths), np.float64)
        for term, times in Counter(analyze(query)).items():
            number = self.terms.get(term)
            if number is None:
                continue
            here = slice(self.starts[number], self.starts[number + 1])
            documents, holding = self.documents[here], int(self.starts[number + 1] - self.starts[number])
            weight = np.float32(times) * np.float32(np.log(1 + (len(self.lengths) - holding + 0.5) / (holding + 0.5)))
            counts = self.counts[here].astype(np.float32)
            scores[documents] += weight - weight / (np.float32(1) + counts * self._norms[documents])
        rounded = scores.astype(np.float32)
        found = np.flatnonzero(rounded > 0)
        if len(found) > most:
            least = np.partition(rounded[found], len(found) - most)[len(found) - most]
            found = found[rounded[found] >= least]
        best = found[np.lexsort((found, -rounded[found]))][:most]
        return [(int(document), float(rounded[document])) for document in best]

    def save(self, folder: Path, about: str) -> None:
        """Write the index into `folder`: arrays without pickles, terms as JSON, and `about` which texts it is."""
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).unlink(missing_ok=True)  # written last: what has it is whole
        for name in ARRAYS:
            buffer = io.BytesIO()
            np.save(buffer, getattr(self, name), allow_pickle=False)
            write_atomically(folder / f"{name}.npy", [buffer.getvalue()], "the index", TaskError)
        write_atomically(folder / "terms.json", [json.dumps(list(self.terms)).encode()], "the index", TaskError)
        known = {"version": VERSION, "about": about, "total": self.total, "documents": len(self.lengths),
                 "terms": len(self.terms), "postings": len(self.documents)}
        write_atomically(folder / ABOUT, [json.dumps(known).encode()], "the index", TaskError)

    @classmethod
    def load(cls, folder: Path, about: str) -> Index | None:
        """The index that `save` wrote about the same texts; None where there is none, or of another version.

        Raises TaskError for one that is damaged.
        """
        import numpy as np

        if not (folder / ABOUT).is_file():
            return None
        known = parsed(Known, read_json(folder / ABOUT, CONFIG_BYTES, "a saved index", TaskError),
                       f"{folder / ABOUT} is not a saved index", TaskError)
        if known.version != VERSION or known.about != about:
            return None
        try:
            arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r") for name in ARRAYS}
            terms = read_json(folder / "terms.json", LARGEST, "a saved index", TaskError)
            sizes = {"starts": known.terms + 1, "documents": known.postings, "counts": known.postings,
                     "lengths": known.documents}
            if any(arrays[name].shape != (size,) or arrays[name].dtype.kind not in "iu"
                   for name, size in sizes.items()) or len(set(map(str, terms))) != known.terms:
                raise ValueError("its files are not of one index")
            if (known.postings and not 0 <= int(arrays["documents"].min()) <= int(arrays["documents"].max()) < \
                    known.documents) or int(arrays["starts"][-1]) != known.postings:
                raise ValueError("its postings point outside")
        except (OSError, ValueError, EOFError, TypeError) as failure:
            raise TaskError(f"the saved index in {folder} is damaged ({one_line(failure)}); delete that folder, and it "
                            "is built anew") from None
        return cls({str(term): number for number, term in enumerate(terms)}, **arrays, total=known.total)

    @classmethod
    def kept(cls, texts: Iterable[str], folder: Path | None, about: str) -> Index:
        """The index of `texts`: read from `folder` where it is there, else built and written there."""
        found = None if folder is None else cls.load(folder, about)
        if found is None:
            found = cls.build(texts)
            if folder is not None:
                found.save(folder, about)
        return found


class Known(Strict):
    """What a saved index says of itself."""

    version: int
    about: str
    total: Annotated[int, Field(ge=0)]
    documents: Annotated[int, Field(ge=0)]
    terms: Annotated[int, Field(ge=0)]
    postings: Annotated[int, Field(ge=0)]


@cache
def _quantised() -> np.ndarray:
    """The lengths that fit into Lucene's byte, ascending: exact up to 40, then four bits of them (SmallFloat)."""
    import numpy as np

    exact = 24
    found = [byte if byte < exact else exact + _four_bits(byte - exact) for byte in range(256)]
    return np.array(found, np.int64)


def _four_bits(byte: int) -> int:
    """A number of three stored bits and a leading one, by its exponent; below eight the number itself."""
    bits, exponent = byte & 7, (byte >> 3) - 1
    return bits if exponent < 0 else (bits | 8) << exponent
