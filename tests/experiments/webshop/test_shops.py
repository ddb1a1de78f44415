from __future__ import annotations

import json

import pytest

from experiments.webshop.shops import generate, overlap
from stl_programs.environments.webshop.catalogue import EMBEDDED, Catalogue


def test_the_embedded_shop_is_what_the_script_writes(tmp_path):
    generate(0, 400).write(tmp_path)
    for path in EMBEDDED.glob("*.json"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("seed", range(4))
def test_generic_shops_share_nothing_with_the_embedded_one(seed):
    assert overlap(generate(0, 400), generate(seed, 400, "generic")) == {
        "names": 0, "ids": 0, "attributes of a kind": 0, "goals": 0}
    assert any(overlap(generate(0, 400), generate(0, 400)).values())


def test_a_product_says_its_attributes_and_has_the_options_that_are_asked_for(tmp_path):
    shop = generate(3, 200)
    for item in shop.items:
        said = " ".join([item["name"], *item["small_description"]]).lower()
        assert all(attribute in said for attribute in shop.attributes[item["asin"]]["attributes"])
    values = {item["asin"]: {value["value"] for choices in (item["customization_options"] or {}).values()
                             for value in choices} for item in shop.items}
    assert all(set(said["instruction_options"]) <= values[asin] for asin, [said] in shop.human.items())
    shop.write(tmp_path)
    assert len(Catalogue.load(tmp_path).products) == 200 == len(json.loads(
        (tmp_path / "items_ins_v2.json").read_text(encoding="utf-8")))
