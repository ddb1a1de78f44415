"""The site out of the repository: README is its home, linked files come along, API pages and file map are generated.

Markdown is written for the repository, where `docs/search.md` links to `../experiments/results/...`; here every
relative link is led to where that file stands in the site. So one text serves both.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = "README.md"
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#\s]+)(?P<after>(?:#[^)\s]*)?\))")
"""An inline link or image: `](TARGET)` or `](TARGET#ANCHOR)`."""
FENCE = re.compile(r"(^ *```.*?^ *```\s*?$)", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated, and every file of the repository that a page links to; then the menu."""
    own = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    for path in linked([HOME, *own]):
        if not path.startswith("docs/"):
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    api = reference.api_pages()
    for path, text in {**api, "files.md": reference.file_map()}.items():
        files.append(File.generated(config, path, content=text))
    config.nav = menu(files, api)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page of the repository to where their files stand in the site."""
    here = repository_path(page.file.src_uri)
    if here is None:
        return markdown

    def lead(match: re.Match[str]) -> str:
        target = match["target"]
        if is_relative(target):
            there = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(here), target)))
            target = posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or ".")
        return match["before"] + target + match["after"]

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lead, part) for part in parts[::2]]
    return "".join(parts)


def linked(pages: list[str]) -> list[str]:
    """`pages` and every file that can be reached from them by relative links, as paths in the repository."""
    found, waiting = dict.fromkeys(pages), list(pages)
    while waiting:
        here = waiting.pop()
        for match in LINK.finditer("".join(FENCE.split((ROOT / here).read_text(encoding="utf-8"))[::2])):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(here), match["target"]))
            if is_relative(match["target"]) and there not in found and (ROOT / there).is_file():
                found[there] = None
                waiting += [there] if there.endswith(".md") else []
    return list(found)


def is_relative(target: str) -> bool:
    """Whether a link leads to a file beside, and not to another host or an address of mail."""
    return not re.match(r"[a-z]+:|/", target)


def site_path(path: str) -> str:
    """Where a file of the repository stands in the site."""
    return "index.md" if path == HOME else path.removeprefix("docs/")


def repository_path(path: str) -> str | None:
    """The file of the repository that a page of the site shows; None where the page is generated."""
    if path == "index.md":
        return HOME
    return next((file for file in (f"docs/{path}", path) if (ROOT / file).is_file()), None)


def menu(files: Files, api: dict[str, str]) -> list[dict[str, object]]:
    """The site's menu: home, the pages of docs/, the generated ones, and what else was linked."""
    pages = [file.src_uri for file in files.documentation_pages()]
    own = [path for path in ORDER if path in pages]
    own += sorted(path for path in pages if (ROOT / "docs" / path).is_file() and path not in own)
    shown = {"index.md", "files.md", "CONTRIBUTING.md", "SECURITY.md", *own, *api}
    reference_menu: list[object] = [{"All names": "api/index.md"}]
    for package in reference.PACKAGES:
        reference_menu.append({package: [{path.rpartition("/")[2][:-3]: path} for path in api
                                         if path.startswith(f"api/{package}/")]})
    return [{"Home": "index.md"}, {"Learn": own}, {"API": reference_menu},
            {"Inside": [path for path in ("CONTRIBUTING.md", "SECURITY.md", "files.md") if path in pages]},
            {"Measured": sorted(path for path in pages if path not in shown)}]


ORDER = ("tutorial.md", "search.md", "models.md", "finetune.md", "experiments.md", "summary.md")
"""How the pages of docs/ are best read; another one follows them."""
