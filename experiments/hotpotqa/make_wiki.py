"""A small encyclopedia of people and places that do not exist, and questions that need two of its articles.

    python -m experiments.hotpotqa.make_wiki --seed 0 --out FILE

The embedded wiki is `--seed 0`. Every name and fact is drawn.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

_FIRST = ("Alda", "Boric", "Cefyn", "Dorle", "Esmo", "Farin", "Gilsa", "Hanno", "Ilva", "Jorun", "Kesti", "Lorne",
          "Mirel", "Nadja", "Orlo", "Perrin", "Quenby", "Rosko", "Selma", "Tavi", "Ulla", "Vesna",
          "Wendel", "Yorick", "Zelda")
_LAST = ("Abrant", "Bellwick", "Corvane", "Dustmere", "Elkridge", "Fennimore", "Galloway", "Hartsong", "Ironby",
         "Jesperin", "Kolvane", "Lindqvist", "Marrow", "Northgate", "Oakhurst", "Pellworth", "Quill", "Ravensdale",
         "Stroud", "Thistle")
_PLACES = ("Arvendale", "Brackwater", "Cindermoor", "Dunhallow", "Eastmarch", "Farrowick", "Glenmora", "Hollowfen",
           "Ivoryport", "Jaspermill", "Kettleford", "Lanternby", "Mossgate", "Nettlecombe", "Osprey Bay", "Pinecaster",
           "Quarrystone", "Rookhaven", "Saltmeadow", "Tidewell")
_COUNTRIES = ("Maravia", "Ostenland", "Velmark", "Sarrano", "Quindor", "Lethmoor")
_RIVERS = ("Alder", "Brisk", "Calder Run", "Dawnwater", "Ember", "Fallow", "Grayling", "Heron")
_BANDS = ("The Copper Foxes", "Velvet Anchor", "Midnight Orchard", "Paper Lanterns", "The Slow Rivers", "Glass Harbor",
          "Northern Static", "The Quiet Engines", "Saffron Kites", "Winter Almanac", "Hollow Crown", "The Tin Sparrows")
_JOBS = ("painter", "composer", "botanist", "novelist", "architect", "sculptor", "chemist", "poet", "cartographer")
_GENRES = ("folk rock", "chamber pop", "surf music", "jazz fusion", "synth pop", "blues")
_WORKS = ("The Salt Road", "Harvest of Glass", "A Map of Rain", "The Ninth Orchard", "Letters from the Weir",
          "The Clockmaker's Tide", "Song of the Marsh", "The Amber Stair", "A House of Reeds", "The Last Ferry",
          "Winter in Umber", "The Paper Bridge", "Cold Lanterns", "The Heron's Debt", "Nine Quiet Rooms",
          "The Orchard Wall", "Ashes and Thyme", "The Glass Weir", "Evening on the Quay", "The Hollow Bell")
SPLITS = ("test", "test", "validation", "train", "train")


def make(seed: int) -> dict[str, Any]:
    """Pages by title, each a list of sentences, and questions with their answer, kind and split."""
    rng = random.Random(seed)
    pages: dict[str, list[str]] = {}
    towns: dict[str, dict[str, Any]]
    people: dict[str, dict[str, Any]] = {}
    countries = {country: rng.choice(_PLACES[i::6]) for i, country in enumerate(_COUNTRIES)}
    towns = {town: {"country": rng.choice(_COUNTRIES), "river": rng.choice(_RIVERS), "founded": rng.randint(1100, 1890),
                    "people": rng.randint(3, 900) * 1000} for town in _PLACES}
    for town in countries.values():
        towns[town]["country"] = next(country for country, capital in countries.items() if capital == town)
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    for name in rng.sample(names, 60):
        people[name] = {"born": rng.randint(1840, 1985), "town": rng.choice(_PLACES), "job": rng.choice(_JOBS)}
    works: dict[str, dict[str, Any]] = {
        work: {"author": rng.choice(list(people)), "year": rng.randint(1870, 2015)} for work in _WORKS}
    bands: dict[str, dict[str, Any]] = {
        band: {"town": rng.choice(_PLACES), "genre": rng.choice(_GENRES), "year": rng.randint(1962, 2012),
               "singer": rng.choice(list(people))} for band in _BANDS}

    for country, capital in countries.items():
        pages[country] = [f"{country} is a country.", f"Its capital is {capital}.",
                          f"It is known for its {rng.choice(('lakes', 'railways', 'markets', 'libraries'))}."]
    for town, it in towns.items():
        pages[town] = [f"{town} is a town in {it['country']}.", f"It lies on the river {it['river']}.",
                       f"The town was founded in {it['founded']}.", f"It has {it['people']:,} inhabitants.",
                       f"A market is held there every {rng.choice(('spring', 'summer', 'autumn'))}.",
                       f"Its oldest building is a {rng.choice(('mill', 'chapel', 'bridge', 'tower'))}."]
    for name, person in people.items():
        written = [work for work, about in works.items() if about["author"] == name]
        pages[name] = [f"{name} (born {person['born']}) is a {person['job']}.",
                       f"{name.split()[0]} was born in {person['town']}.",
                       f"{name.split()[0]} studied in {rng.choice(_PLACES)}.",
                       *(f"Among the works is \"{work}\"." for work in written)]
    for work, about in works.items():
        pages[work] = [f"\"{work}\" is a book by {about['author']}.", f"It appeared in {about['year']}.",
                       f"The story is set in {rng.choice(_PLACES)}."]
    for band, about in bands.items():
        pages[band] = [f"{band} is a {about['genre']} band from {about['town']}.", f"It was formed in {about['year']}.",
                       f"Its singer is {about['singer']}."]

    asked: list[tuple[str, str, str]] = []
    for work, about in works.items():
        author = people[about["author"]]
        asked += [(f"In which town was the author of \"{work}\" born?", author["town"], "bridge"),
                  (f"In which year was the author of \"{work}\" born?", str(author["born"]), "bridge"),
                  (f"What was the profession of the author of \"{work}\"?", author["job"], "bridge")]
    for band, about in bands.items():
        home, singer = towns[about["town"]], people[about["singer"]]
        asked += [(f"On which river lies the town that the band {band} is from?", home["river"], "bridge"),
                  (f"In which country is the town that the band {band} is from?", home["country"], "bridge"),
                  (f"In which town was the singer of {band} born?", singer["town"], "bridge")]
    for name, person in rng.sample(sorted(people.items()), 36):
        home = towns[person["town"]]
        asked += [(f"In which country was {name} born?", home["country"], "bridge"),
                  (f"When was the town founded in which {name} was born?", str(home["founded"]), "bridge")]
    for country, capital in countries.items():
        asked.append((f"On which river lies the capital of {country}?", towns[capital]["river"], "bridge"))
    for one, other in _pairs(rng, sorted(people), 24):
        same = people[one]["job"] == people[other]["job"]
        asked.append((f"Did {one} and {other} have the same profession?", "yes" if same else "no", "comparison"))
        if people[one]["born"] != people[other]["born"]:
            earlier = min(one, other, key=lambda name: people[name]["born"])
            asked.append((f"Who was born earlier, {one} or {other}?", earlier, "comparison"))
    for first, second in _pairs(rng, sorted(towns), 16):
        larger = max(first, second, key=lambda name: towns[name]["people"])
        asked.append((f"Which town has more inhabitants, {first} or {second}?", larger, "comparison"))
        same = towns[first]["country"] == towns[second]["country"]
        asked.append((f"Are {first} and {second} in the same country?", "yes" if same else "no", "comparison"))
    rng.shuffle(asked)
    questions = [{"id": f"q{i:03}", "question": question, "answer": answer, "type": kind,
                  "split": SPLITS[i % len(SPLITS)]} for i, (question, answer, kind) in enumerate(asked)]
    return {"pages": dict(sorted(pages.items())), "questions": questions}


def _pairs(rng: random.Random, names: list[str], count: int) -> list[tuple[str, str]]:
    return [(pair[0], pair[1]) for pair in (rng.sample(names, 2) for _ in range(count))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = make(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(f"{len(found['pages'])} articles, {len(found['questions'])} questions, in {args.out}")


if __name__ == "__main__":
    main()
