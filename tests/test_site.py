"""The site as `make docs` builds it: no warning, no dead link, a page per public name, nothing from other hosts."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs", reason="`make docs` installs what builds the site")
ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself, by tag and attribute."""


class Links(HTMLParser):
    """The links, the loaded assets and the anchors of one page."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: set[str] = set()
        self.assets: set[str] = set()
        self.anchors: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.classes |= set(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if LOADED.get(tag) in found and found.get("rel") != "canonical":
            self.assets.add(found[LOADED[tag]])


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)], cwd=root,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(root), "NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {page: Links(page) for page in site.rglob("*.html")}


def test_every_public_name_has_its_page(site):
    for package in ("stl_programs", "optimizers", "signatures"):
        for name in importlib.import_module(package).__all__:
            page = (site / "api" / package / f"{name}.html").read_text(encoding="utf-8")
            assert re.search(rf'<h1 id="[\w.]*\.{name}"', page), f"{package}.{name}"


def test_an_api_page_shows_parameters_and_example(site):
    page = (site / "api/stl_programs/MCTS.html").read_text(encoding="utf-8")
    assert "at most this many; fewer where the whole tree is known" in page
    assert "Examples:" in page and 'class="gp">&gt;&gt;&gt; ' in page


def test_no_internal_link_is_dead(site, pages):
    seen = 0
    for page, found in pages.items():
        for link in found.links | found.assets:
            url = urlsplit(link)
            if url.scheme or url.netloc or page.name == "404.html":
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            assert target.is_file() and target.is_relative_to(site), f"{page.relative_to(site)} links to {link}"
            if url.fragment and target.suffix == ".html":
                assert unquote(url.fragment) in pages[target].anchors, f"{page}: {link}"
            seen += 1
    assert seen > 1000


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for page, found in pages.items():
        assert not [asset for asset in found.assets if urlsplit(asset).netloc], page
        assert "mermaid" not in found.classes, f"{page}: the theme fetches Mermaid from another host"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_home_is_the_readme_and_linked_tables_come_along(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "Search programs over language models whose value model teaches itself." in home
    assert 'href="tutorial.html"' in home and 'src="demo.png"' in home
    assert 'href="experiments/results/benchmarks/search.html"' in (site / "search.html").read_text(encoding="utf-8")
    assert (site / "experiments/results/benchmarks/search.html").is_file()
    assert {path.parent for path in site.rglob("*.py")} == {site / "examples"}


def test_a_new_name_gets_its_page_and_a_dead_link_ends_the_build(tmp_path):
    copy = tmp_path / "copy"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.splitlines()
    for path in filter(lambda path: (ROOT / path).is_file(), listed):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).symlink_to(ROOT / path) if path.endswith(".safetensors") else (copy / path).write_bytes(
            (ROOT / path).read_bytes())
    package = copy / "optimizers/__init__.py"
    package.write_text(package.read_text() + "\nfrom optimizers.ours import Ours\n__all__ += ['Ours']\n")
    (copy / "optimizers/ours.py").write_text('"""A file of ours."""\n\nclass Ours:\n    """Does what is ours."""\n')
    done = build(tmp_path / "site", copy)
    assert done.returncode == 0, done.stderr
    assert "Does what is ours." in (tmp_path / "site/api/optimizers/Ours.html").read_text()
    assert "A file of ours." in (tmp_path / "site/files.html").read_text()
    with (copy / "docs/search.md").open("a") as page:
        page.write("\n[Nowhere](nowhere.md) and [no part](tutorial.md#nowhere)\n")
    done = build(tmp_path / "site", copy)
    assert done.returncode != 0 and "nowhere.md" in done.stderr and "#nowhere" in done.stderr
