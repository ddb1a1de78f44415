"""The page of a tree in a real, headless Chromium: what is shown, what runs, and that large trees stay usable."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

import pytest

from stl_programs.viewer import tree_page

pytestmark = pytest.mark.slow
pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from tests.browser import chromium  # noqa: E402

HOSTILE = ("</script><script>window.ran = 1</script><img src=x onerror=\"window.ran = 1\">"
           "<svg onload='window.ran = 1'>\u2028&lt;b&gt;")


def node(i, parent, score=None, **fields):
    return {"id": i, "parent": parent, "action": None if parent is None else f"go {i}", "state": f"state {i}",
            "terminal": False, "expanded": False, "kept": False,
            "value": None if parent is None else {"score": score, "rationale": f"reason {i}",
                                                  "samples": [[score, None if score else "cut short"]]}, **fields}


SMALL = {"task": "the task", "program": "BeamSearch", "information": "reward-free", "answer": "the answer", "chosen": 4,
         "ended": "calls: 9 of 9", "nodes": [
             node(0, None, expanded=True, kept=True), node(1, 0, 0.5), node(2, 0, 0.75, expanded=True, kept=True),
             node(3, 0, expanded=True, visits=2,
                  cost={"calls": 3, "prompt_tokens": 50, "completion_tokens": 6, "dollars": 0.25}),
             node(4, 2, 1, terminal=True, kept=True), node(5, 2, 0.25), node(6, 3, 0.125)]}


class Page:
    """One open page, and what its user sees."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, selector):
        return self.driver.find_elements("css selector", selector)

    def rows(self):
        """Ids of the rows in the document, top to bottom."""
        return [row.get_attribute("data-id") for row in self.find(".row")]

    def row(self, i):
        [row] = self.find(f".row[data-id='{i}']")
        return row

    def selected(self):
        """The id of the selected row, which is also the one that assistive technology is told of."""
        row, active, name = self.driver.execute_script(
            """const [row, second] = document.querySelectorAll(".row[aria-selected=true]");
            return [second ? null : row.id, document.getElementById("tree").getAttribute("aria-activedescendant"),
                    row.dataset.id];""")
        assert row == active
        return name

    def text(self, selector):
        return self.find(selector)[0].get_property("textContent")

    def press(self, *keys):
        for key in keys:
            self.find("#tree")[0].send_keys(key)

    def click(self, selector):
        self.find(selector)[0].click()

    def search(self, text):
        box = self.find("#query")[0]
        box.clear()
        box.send_keys(text)
        WebDriverWait(self.driver, 30).until(lambda _: self.text("#hits") != "…")

    def elements(self):
        return self.driver.execute_script("return document.querySelectorAll('*').length")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def visit(driver, tmp_path):
    """Opens the page of a record; afterwards the console must be empty."""

    def visit(record) -> Page:
        path: Path = tmp_path / "tree.html"
        path.write_text(tree_page(record), encoding="utf-8")
        driver.get(path.as_uri())
        WebDriverWait(driver, 30).until(lambda _: driver.find_elements("css selector", ".row"))
        return Page(driver)

    yield visit
    assert driver.get_log("browser") == []


def test_the_page_opens_on_the_chosen_path(visit):
    page = visit(SMALL)
    assert page.rows() == ["0", "2", "4", "5", "1", "3"]
    assert [row.get_attribute("data-id") for row in page.find(".row.chosen")] == ["0", "2", "4"]
    assert all(row.is_displayed() and "★" in row.text for row in page.find(".row.chosen"))
    plain, chosen = (page.row(i).value_of_css_property("background-color") for i in (1, 2))
    assert plain != chosen
    assert page.selected() == "4" and "answer" in page.row(4).text
    assert (page.text("#task"), page.text("#answer")) == ("the task", "the answer")
    for fact in ("BeamSearch", "reward-free", "calls: 9 of 9", "7, 3 expanded, 3 kept", "6, 1 missing", "0.125 to 1",
                 "3 calls, 50 prompt tokens, 6 completion tokens, $0.250"):
        assert fact in page.text("#facts")


def test_a_row_opens_closes_and_fills_the_panel(visit):
    page = visit(SMALL)
    assert page.row(3).get_attribute("aria-expanded") == "false" and page.row(1).get_attribute("aria-expanded") is None
    page.click(".row[data-id='3'] .twisty")
    assert page.rows()[-2:] == ["3", "6"] and page.row(3).get_attribute("aria-expanded") == "true"
    for shown in ("go 3", "missing", "cut short", "state 3", "reason 3", "3 calls", "$0.250", "expanded"):
        assert shown in page.text("#detail")
    ActionChains(page.driver).double_click(page.row(3).find_element("css selector", ".text")).perform()
    assert page.rows()[-1] == "3"
    page.click(".row[data-id='1'] .text")
    assert page.selected() == "1" and "reason 1" in page.text("#detail")


def test_keys_move_open_and_close(visit):
    page = visit(SMALL)
    page.press(Keys.ARROW_LEFT)
    assert page.selected() == "2"
    page.press(Keys.ARROW_LEFT)
    assert page.selected() == "2" and page.rows() == ["0", "2", "1", "3"]
    page.press(Keys.END, Keys.ARROW_RIGHT)
    assert page.selected() == "3" and page.rows() == ["0", "2", "1", "3", "6"]
    page.press(Keys.ARROW_RIGHT)
    assert page.selected() == "6"
    page.press(Keys.ARROW_UP, Keys.ENTER)
    assert page.selected() == "3" and page.rows() == ["0", "2", "1", "3"]
    page.press(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.selected() == "1"
    page.press("/")
    assert page.driver.switch_to.active_element.get_attribute("id") == "query"


def test_roles_and_names_are_those_of_a_tree(visit):
    page = visit(SMALL)
    assert page.find("#tree")[0].aria_role == "tree"
    row = page.row(2)
    assert row.aria_role == "treeitem" and "value 0.75" in row.accessible_name and "chosen" in row.accessible_name
    assert [row.get_attribute(f"aria-{name}") for name in ("level", "setsize", "posinset", "expanded")] == [
        "2", "3", "1", "true"]


def test_buttons_and_sorting(visit):
    page = visit(SMALL)
    page.click("#close-all")
    assert page.rows() == ["0"] and page.selected() == "0"
    page.click("#show-kept")
    assert page.rows() == ["0", "2", "4", "5", "1", "3"]
    page.click("#sort option[value=visits]")
    assert page.rows() == ["0", "3", "2", "4", "5", "1"]
    page.click("#sort option[value=order]")
    assert page.rows() == ["0", "1", "2", "4", "5", "3"]
    page.click("#close-all")
    page.click("#show-chosen")
    assert page.selected() == "4"


def test_search_reveals_what_it_finds(visit):
    page = visit(SMALL)
    page.search("REASON 6")
    assert page.selected() == "6" and page.text("#hits") == "1 of 1" and page.text("#detail mark") == "reason 6"
    page.search("state")
    seen = [page.selected()]
    for _ in range(5):
        page.find("#query")[0].send_keys(Keys.ENTER)
        seen.append(page.selected())
    page.click("#next")
    seen.append(page.selected())
    assert seen == ["0", "2", "4", "5", "1", "3", "6"] and page.text("#hits") == "7 of 7"
    page.search("nowhere")
    assert page.text("#hits") == "no match" and not page.find("#next")[0].is_enabled()


def test_hostile_text_is_shown_and_never_run(visit):
    hostile = node(1, 0, 0.5, action=HOSTILE, state=HOSTILE, terminal=True)
    hostile["value"] |= {"rationale": HOSTILE, "samples": [[None, HOSTILE]]}
    page = visit({"task": HOSTILE, "program": HOSTILE, "information": HOSTILE, "answer": HOSTILE, "ended": HOSTILE,
                  "chosen": 1, "nodes": [node(0, None), hostile]})
    time.sleep(0.3)
    assert page.driver.execute_script("return window.ran") is None
    assert not page.find("img, svg, b") and len(page.find("script")) == 2
    for place in ("#task", "#answer", "#detail h2", "#detail pre", "#detail tbody td:last-child"):
        assert page.text(place) == HOSTILE
    page.search("<svg")
    assert page.text(".row mark") == "<svg"


def test_the_policy_stops_what_would_be_put_in(visit):
    page = visit(SMALL)
    page.driver.execute_script("""const script = document.createElement("script");
        script.textContent = "window.ran = 1"; document.body.append(script);""")
    assert page.driver.execute_script("return window.ran") is None
    assert "Content Security Policy" in page.driver.get_log("browser")[0]["message"]


def big(count, breadth):
    """A tree of `count` nodes, each with `breadth` children as long as there are nodes left."""
    nodes = [node(0, None, expanded=True, kept=True)]
    nodes += [node(i, (i - 1) // breadth, (i * 37 % 1000 + 1) / 1000, kept=True, visits=count - i)
              for i in range(1, count)]
    for n in nodes[1:]:
        n["value"]["rationale"] = f"reason {n['id']}: " + "as the numbers left can still be combined " * 6
    return {"task": "a large task", "chosen": count - 1, "nodes": nodes}


@pytest.mark.parametrize("count, breadth", [(5_000, 29), (20_000, 29), (20_000, 20_000), (20_000, 1)],
                         ids=["5,000", "20,000", "20,000 in one family", "20,000 in one line"])
def test_large_trees_stay_usable(visit, count, breadth):
    clock = time.perf_counter()

    def lap(what):
        nonlocal clock
        print(f"{count} by {breadth}: {what} {time.perf_counter() - clock:.2f} s, {page.elements()} elements")
        assert page.elements() < 3_000
        clock = time.perf_counter()

    page = visit(big(count, breadth))
    lap("opened")
    assert page.selected() == str(count - 1) and page.row(count - 1).is_displayed()
    page.press(Keys.HOME, Keys.ENTER, Keys.ENTER, Keys.ARROW_RIGHT)
    lap("closed and opened the root")
    page.click("#show-kept")
    lap("opened all kept")
    page.press(Keys.END)
    lap("went to the end")
    page.search(f"reason {count // 2}:")
    assert page.selected() == str(count // 2) and page.row(count // 2).is_displayed()
    lap("searched")
    page.click("#sort option[value=visits]")
    assert page.selected() == str(count // 2)
    lap("sorted")


def test_a_wide_family_is_shown_in_steps(visit):
    record = big(1_000, 1_000) | {"chosen": None}
    page = visit(record)
    page.click("#sort option[value=order]")
    page.press(Keys.END)
    assert page.find(".row")[-1].text == "Show 200 more of 799 not shown"
    page.press(Keys.ENTER)
    assert page.selected() == "201"
    page.press(Keys.END, Keys.ARROW_LEFT)
    assert page.selected() == "0"


def test_it_works_in_a_sandboxed_frame(driver, tmp_path):
    """As MLflow shows an HTML artifact: a blob in a frame that may run scripts and has no origin."""
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<!doctype html><iframe id="frame" sandbox="allow-scripts" width="900" height="500"></iframe>
        <template id="page">{escape(tree_page(SMALL))}</template>
        <script>const page = new Blob([document.getElementById("page").content.textContent], {{type: "text/html"}});
        document.getElementById("frame").src = URL.createObjectURL(page);</script>""")
    driver.get(frame.as_uri())
    driver.switch_to.frame("frame")
    page = Page(driver)
    WebDriverWait(driver, 30).until(lambda _: page.find(".row"))
    assert page.selected() == "4"
    page.press(Keys.HOME)
    assert page.selected() == "0"
    driver.switch_to.default_content()
