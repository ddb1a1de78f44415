"""The shop in a real, headless Chromium: bought with a mouse, with keys alone, and on a phone."""

from __future__ import annotations

import json

import pytest

from stl_programs import WebShop
from stl_programs.records import Action

pytestmark = pytest.mark.slow
pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from tests.browser import chromium  # noqa: E402
from tests.stl_programs.environments.webshop.test_webshop_server import serving  # noqa: E402

PHONE = 360


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def shop():
    return WebShop(tags="rules")


@pytest.fixture(scope="module")
def url(shop):
    with serving(shop) as url:
        yield url


def find(driver, selector):
    return driver.find_elements("css selector", selector)


def titled(driver, title):
    WebDriverWait(driver, 20).until(lambda _: driver.title == f"WebShop: {title}")


def wanted(shop, number):
    """A goal's instruction, product and options, in words that its pages show."""
    goal = shop.goals[number]
    return goal, shop.catalogue.by_asin[goal.asin]


def bought(shop, number, product, options):
    task = shop.task(str(number))
    return shop.score(task, json.dumps({"asin": product.asin, "options": options}))


def score_shown(driver):
    text = find(driver, "main")[0].text
    return float(next(line for line in text.splitlines() if line.replace(".", "", 1).isdigit()))


def test_a_purchase_with_the_mouse(driver, shop, url):
    goal, product = wanted(shop, 3)
    driver.get(f"{url}/fixed_3")
    titled(driver, "Search")
    assert goal.text.split(", and price")[0] in find(driver, "#instruction-text")[0].text
    find(driver, "#search_input")[0].send_keys(product.title)
    find(driver, "form[role=search] button")[0].click()
    titled(driver, "Results")
    [link] = [one for one in find(driver, ".product-link") if one.text.upper() == product.asin.upper()]
    link.click()
    titled(driver, "Product")
    chosen = {name: values[-1] for name, values in product.options}
    for name, value in chosen.items():
        [radio] = [one for one in find(driver, "input[type=radio]")
                   if (one.get_attribute("name"), one.get_attribute("value")) == (name, value)]
        radio.click()
    find(driver, "button.main")[-1].click()
    titled(driver, "Bought")
    assert score_shown(driver) == pytest.approx(bought(shop, 3, product, chosen), abs=1e-9)
    assert driver.get_log("browser") == []


def test_a_purchase_with_keys_alone_whose_focus_can_be_seen(driver, shop, url):
    _, product = wanted(shop, 5)
    driver.get(f"{url}/fixed_5")
    titled(driver, "Search")
    keys = ActionChains(driver)
    keys.send_keys(product.title, Keys.ENTER).perform()  # the search box has the focus
    titled(driver, "Results")

    def tab_to(matches):
        for _ in range(80):
            ActionChains(driver).send_keys(Keys.TAB).perform()
            here = driver.switch_to.active_element
            if matches(here):
                outline = here.value_of_css_property("outline-style")
                assert outline == "solid", f"the focus on {here.text or here.tag_name} is not seen: {outline}"
                return
        raise AssertionError("the keyboard does not reach it")

    tab_to(lambda one: one.text.upper() == product.asin.upper())
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    titled(driver, "Product")
    if product.options:
        tab_to(lambda one: one.get_attribute("type") == "radio")
        ActionChains(driver).send_keys(Keys.SPACE).perform()
    tab_to(lambda one: one.text == "Buy Now")
    chosen = {one.get_attribute("name"): one.get_attribute("value") for one in find(driver, "input:checked")}
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    titled(driver, "Bought")
    assert score_shown(driver) == pytest.approx(bought(shop, 5, product, chosen), abs=1e-9)


def test_every_page_fits_a_phone(driver, shop, url):
    _, product = wanted(shop, 3)
    task = shop.task("3")
    state = shop.step(shop.reset(task), Action(f"search[{product.title}]")).state
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": PHONE, "height": 780, "deviceScaleFactor": 2, "mobile": True})
    try:
        query = "+".join(state.data.keywords)
        for path in ("fixed_3", f"search_results/fixed_3/{query}/1",
                     f"item_page/fixed_3/{product.asin}/{query}/1/%7B%7D",
                     f"item_sub_page/fixed_3/{product.asin}/{query}/1/Features/%7B%7D",
                     f"done/fixed_3/{product.asin}/%7B%7D"):
            driver.get(f"{url}/{path}")
            width = driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= PHONE, f"{path} is {width} pixels wide"
            sizes = [(one.text, one.size["height"]) for one in find(driver, "button")]
            assert all(height >= 40 for _, height in sizes), f"{path}: buttons too small for a thumb: {sizes}"
            font = driver.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)")
            assert font >= 16
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_text_stays_text(driver, tmp_path):
    """A product whose title is a script is shown, and does not run."""
    hostile = "</title><script>window.ran = 1</script><img src=x onerror='window.ran = 1'> lamp"
    items = [{"asin": "B000000001", "name": hostile, "category": "lamps", "query": "lamp", "product_category": "a › b",
              "small_description": [hostile], "full_description": hostile, "pricing": "$10.00", "images": [],
              "customization_options": {"colour": [{"value": hostile, "is_selected": False, "price": None,
                                                    "price_string": "", "image": None, "asin": None, "url": ""}]},
              "average_rating": 4, "brand": hostile}]
    files = [tmp_path / f"{name}.json" for name in ("items", "attributes", "human")]
    files[0].write_text(json.dumps(items))
    files[1].write_text(json.dumps({"B000000001": {"attributes": ["bright"], "instruction": "a lamp",
                                                   "instruction_attributes": ["bright"]}}))
    files[2].write_text(json.dumps({"B000000001": [{
        "asin": "B000000001", "instruction": f"i want a lamp {hostile}", "attributes": ["bright"],
        "options": [hostile.lower()], "instruction_attributes": ["bright"], "instruction_options": []}]}))
    with serving(WebShop(*files, tags="rules")) as url:
        for path in ("fixed_0", "search_results/fixed_0/lamp/1", "item_page/fixed_0/B000000001/lamp/1/%7B%7D",
                     "item_sub_page/fixed_0/B000000001/lamp/1/Features/%7B%7D",
                     "item_sub_page/fixed_0/B000000001/lamp/1/Description/%7B%7D"):
            driver.get(f"{url}/{path}")
            assert "onerror" in find(driver, "main")[0].text
            assert driver.execute_script("return window.ran") is None
            assert not find(driver, "script") and not find(driver, "img")
