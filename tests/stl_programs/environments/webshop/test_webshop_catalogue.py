"""Files of the benchmark: of any size, and wrong in many ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stl_programs import WebShop
from stl_programs.environments.webshop import catalogue
from stl_programs.environments.webshop.catalogue import EMBEDDED, Catalogue, objects
from stl_programs.errors import TaskError


@pytest.fixture
def files(tmp_path) -> Path:
    for path in EMBEDDED.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(folder: Path, change, name: str = "items_shuffle.json"):
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    changed = change(content)
    (folder / name).write_text(json.dumps(content if changed is None else changed), encoding="utf-8")


def refused(*args, **settings) -> str:
    with pytest.raises(TaskError) as failure:
        WebShop(*args, tags="rules", **settings)
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 400
    return str(failure.value)


def without(field: str):
    return lambda items: [item.pop(field) for item in items] and None


@pytest.mark.parametrize("change, said", [
    (lambda items: {"items": items}, "does not begin with '['"), (lambda items: [], "holds no product"),
    (lambda items: [1], "product 0"), (without("customization_options"), "customization_options is missing"),
    (without("name"), "name is missing"), (lambda items: items[0].update(pricing="free"), "pricing is 'free'"),
    (lambda items: items[0].update(pricing="$" + "9" * 400), "pricing is"),
    (lambda items: items[3].update(asin=7), "product 3"),
    (lambda items: items[0].update(customization_options={"size": [{"values": "x"}]}), "value is missing")])
def test_a_product_file_of_another_form_is_one_line(files, change, said):
    edit(files, change)
    assert said in refused(files) and str(files) in refused(files)


@pytest.mark.parametrize("name, change, said", [
    ("items_ins_v2.json", lambda about: list(about), "it is a list"),
    ("items_ins_v2.json", lambda about: dict.fromkeys(about, 3), "items_ins_v2.json is not"),
    ("items_human_ins.json", lambda said: {asin: {} for asin in said}, "not a list"),
    ("items_human_ins.json", lambda said: {}, "no human goals"),
    ("items_human_ins.json", lambda said: {asin: [{"instruction": "x"}] for asin in said}, "is missing")])
def test_an_attribute_or_instruction_file_of_another_form_is_one_line(files, name, change, said):
    edit(files, change, name)
    assert said in refused(files)


@pytest.mark.parametrize("name", ["items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_one_line(files, name, share):
    content = (files / name).read_bytes()
    (files / name).write_bytes(content[:int(len(content) * share)])
    assert name in refused(files)


def test_files_that_are_not_there_are_one_line(files, tmp_path):
    assert "no.json" in refused(tmp_path / "no.json")
    (files / "items_ins_v2.json").unlink()
    assert "items_ins_v2.json" in refused(files)
    assert "neither a whole number" in refused(seed="monday")
    with pytest.raises(TaskError, match="choose auto, rules or spacy"):
        WebShop(tags="lucky")
    assert "items_human_ins.json" in refused(EMBEDDED / "items_shuffle.json", EMBEDDED / "items_ins_v2.json")


def test_a_catalogue_without_prices_or_options_is_said_and_loads(files):
    edit(files, lambda items: [item.update(pricing="", customization_options="") for item in items] and None)
    with pytest.warns(UserWarning) as warned:
        shop = WebShop(files, tags="rules")
    assert {str(one.message).split(":")[0] for one in warned} == {
        "no product of items_shuffle.json has a price", "no product of items_shuffle.json has options"}
    assert set(shop.shop.prices.values()) == {100.0}


def test_products_are_read_one_at_a_time_whatever_the_chunks(files, monkeypatch):
    whole = list(objects(files / "items_shuffle.json"))
    monkeypatch.setattr(catalogue, "CHUNK", 997)
    assert list(objects(files / "items_shuffle.json")) == whole and len(whole) == 400
    assert next(iter(objects(files / "items_shuffle.json"))) == whole[0]


def test_the_first_products_only_and_none_twice(files):
    edit(files, lambda items: items[:5] + items[:3] + [items[6] | {"asin": "nan"}, items[7] | {"asin": "X" * 11}])
    assert len(Catalogue.load(files).products) == 5
    assert len(Catalogue.load(files, most=2).products) == 2


def test_prices_and_options_are_read_as_upstream_reads_them(files):
    def change(items):
        items[0].update(pricing="$1,234.50", customization_options={
            "Size": [{"value": " 1/2 Inch "}], "Color": None, "size": [{"value": "big"}]})
        items[1].update(pricing="$5.00 - $9.99")
    edit(files, change)
    first, second = Catalogue.load(files).products[:2]
    assert (first.prices, first.price_tag, first.options) == ((1234.5,), "$1234.5", (("size", ("big",)),))
    assert (second.prices, second.price_tag) == ((5.0, 9.99), "$5.0 to $9.99")


def test_a_catalogue_says_which_it_is(files):
    before = Catalogue.load(files)
    assert before.name == f"items_shuffle.json, 400 products, {before.hash}"
    edit(files, lambda items: items[0].update(pricing="$1.00"))
    assert Catalogue.load(files).hash != before.hash == Catalogue.load().hash
