"""What fictional shops sell: kinds of products with the words for them. All of it is invented or general."""

from __future__ import annotations

from typing import NamedTuple

COLOURS = ("black", "white", "navy blue", "forest green", "sand", "burgundy", "slate grey", "mustard yellow", "teal",
           "rose pink", "cream", "charcoal")
CLOTHES = ("x-small", "small", "medium", "large", "x-large", "xx-large")
FLAVOURS = ("lemon", "wild berry", "vanilla", "sea salt", "ginger", "dark chocolate", "maple", "chili")
PACKS = ("pack of 1", "pack of 2", "pack of 4", "pack of 6", "pack of 12")
SCENTS = ("lavender", "cedar", "citrus", "unscented", "rosemary", "green tea")
LENGTHS = ("3 feet", "6 feet", "10 feet", "15 feet")
ROOM_SIZES = ("20 x 30 inch", "24 x 36 inch", "30 x 40 inch", "36 x 48 inch")


class Sold(NamedTuple):
    """One kind of product.

    `path`: of its category. `query`: what it is listed under. `nouns`: what it may be called. `attributes`: what it may
    have, two words each. `options`: the values of each choice that there may be. `dollars`: of prices.
    """

    category: str
    path: str
    query: str
    nouns: tuple[str, ...]
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    dollars: tuple[int, int]


def _sold(category: str, path: str, query: str, nouns: str, attributes: str, options: dict[str, tuple[str, ...]],
          dollars: tuple[int, int]) -> Sold:
    return Sold(category, path, query, tuple(nouns.split(", ")), tuple(attributes.split(", ")), options, dollars)


FASHION, GARDEN, GROCERY = "Clothing, Shoes & Jewelry", "Home & Kitchen", "Grocery & Gourmet Food"
BEAUTY, ELECTRONICS = "Beauty & Personal Care", "Electronics"
_WEAR = {"color": COLOURS, "size": CLOTHES}

KINDS = (
    _sold("fashion", f"{FASHION} › Men › Shirts", "men's shirts", "oxford shirt, work shirt, button shirt",
          "slim fit, machine washable, long sleeve, short sleeve, moisture wicking, wrinkle free, stretch fabric, "
          "organic cotton, classic fit, quick dry", _WEAR, (14, 70)),
    _sold("fashion", f"{FASHION} › Women › Sweaters", "women's sweaters", "knit sweater, cardigan, pullover",
          "hand wash, machine washable, wool blend, loose fit, high neck, ribbed cuffs, relaxed fit, long sleeve, "
          "cable knit, soft lining", _WEAR, (22, 95)),
    _sold("fashion", f"{FASHION} › Men › Shorts", "men's shorts", "hiking shorts, chino shorts, running shorts",
          "quick dry, elastic waist, drawstring closure, zipper pockets, slim fit, stretch fabric, reflective trim, "
          "machine washable, cotton twill, water repellent", _WEAR, (12, 55)),
    _sold("fashion", f"{FASHION} › Women › Shoes", "women's walking shoes", "walking shoes, slip-on shoes, sneakers",
          "rubber sole, arch support, memory foam, wide toe, non slip, vegan leather, breathable mesh, easy clean, "
          "light weight, padded collar", {"color": COLOURS, "size": ("5", "6", "7", "8", "9", "10", "11")}, (28, 120)),
    _sold("fashion", f"{FASHION} › Accessories › Bags", "shoulder bags", "canvas tote, shoulder bag, messenger bag",
          "water resistant, inner pocket, adjustable strap, vegan leather, zip closure, padded sleeve, light weight, "
          "recycled fabric, key leash, stain resistant", {"color": COLOURS}, (18, 90)),
    _sold("garden", f"{GARDEN} › Furniture › Tables", "side tables", "side table, nightstand, end table",
          "solid wood, easy assembly, storage drawer, space saving, metal frame, scratch resistant, charging port, "
          "rounded corners, oak veneer, adjustable feet", {"color": COLOURS}, (45, 260)),
    _sold("garden", f"{GARDEN} › Bedding › Pillows", "throw pillows", "throw pillow, cushion cover, bolster pillow",
          "machine washable, hidden zipper, double sided, linen blend, hypoallergenic fill, embroidered pattern, "
          "fade resistant, soft velvet, down alternative, tufted texture",
          {"color": COLOURS, "size": ("16 x 16 inch", "18 x 18 inch", "20 x 20 inch", "24 x 24 inch")}, (9, 48)),
    _sold("garden", f"{GARDEN} › Kitchen › Cups", "coffee mugs", "stoneware mug, travel mug, espresso cup",
          "dishwasher safe, double walled, spill proof, hand glazed, lead free, microwave safe, wide handle, "
          "insulated body, stackable shape, matte finish",
          {"color": COLOURS, "size": ("8 ounce", "12 ounce", "16 ounce", "20 ounce")}, (8, 42)),
    _sold("garden", f"{GARDEN} › Decor › Wall Art", "wall art", "canvas print, framed poster, wall hanging",
          "ready hang, solid frame, fade resistant, hand painted, living room, bed room, matte paper, mounting kit, "
          "gallery wrapped, recycled paper", {"size": ROOM_SIZES}, (16, 140)),
    _sold("garden", f"{GARDEN} › Bath › Towels", "bath towels", "bath towel, towel set, hand towel",
          "quick dry, organic cotton, machine washable, super absorbent, lint free, hanging loop, waffle weave, "
          "fade resistant, extra large, bamboo fiber", {"color": COLOURS, "size": PACKS}, (10, 60)),
    _sold("garden", f"{GARDEN} › Lighting › Lamps", "table lamps", "desk lamp, reading lamp, bedside lamp",
          "dimmable light, touch control, usb port, warm glow, energy efficient, flexible arm, memory function, "
          "solid base, eye caring, cord switch", {"color": COLOURS}, (17, 110)),
    _sold("grocery", f"{GROCERY} › Snacks › Bars", "snack bars", "oat bar, nut bar, fruit bar",
          "gluten free, low sugar, plant based, high protein, nut free, dairy free, non gmo, whole grain, soy free, "
          "high fiber", {"flavor name": FLAVOURS, "size": PACKS}, (6, 38)),
    _sold("grocery", f"{GROCERY} › Beverages › Tea", "herbal teas", "loose tea, herbal tea, tea bags",
          "caffeine free, fair trade, hand picked, usda organic, sugar free, compostable bags, naturally sweet, "
          "single origin, non gmo, resealable pouch", {"flavor name": FLAVOURS, "size": PACKS}, (5, 34)),
    _sold("grocery", f"{GROCERY} › Pantry › Oils", "cooking oils", "olive oil, avocado oil, sesame oil",
          "cold pressed, extra virgin, non gmo, keto friendly, glass bottle, unrefined oil, high smoke, fair trade, "
          "trans fat, usda organic", {"size": ("8 fl oz", "16 fl oz", "32 fl oz")}, (9, 48)),
    _sold("grocery", f"{GROCERY} › Snacks › Nuts", "roasted nuts", "almonds, cashews, trail mix",
          "dry roasted, low sodium, gluten free, non gmo, kosher certified, resealable bag, shelf stable, "
          "artificial free, plant based, protein serving", {"flavor name": FLAVOURS, "size": PACKS}, (7, 44)),
    _sold("grocery", f"{GROCERY} › Breakfast › Cereals", "granola", "granola, muesli, porridge oats",
          "whole grain, gluten free, nut free, low sugar, high fiber, small batch, dairy free, ancient grains, "
          "usda organic, ready eat", {"flavor name": FLAVOURS}, (5, 30)),
    _sold("beauty", f"{BEAUTY} › Hair › Shampoo", "shampoos", "shampoo, shampoo bar, scalp wash",
          "sulfate free, paraben free, color safe, tea tree, cruelty free, dry scalp, damaged hair, fragrance free, "
          "natural ingredients, travel size", {"scent": SCENTS, "size": ("3 ounce", "8 ounce", "16 ounce")}, (7, 40)),
    _sold("beauty", f"{BEAUTY} › Skin › Creams", "face creams", "face cream, moisturizer, night cream",
          "fragrance free, hyaluronic acid, sensitive skin, oil free, fine lines, cruelty free, dry skin, sun "
          "protection, dermatologist tested, vitamin c", {"size": ("1 ounce", "2 ounce", "4 ounce")}, (11, 75)),
    _sold("beauty", f"{BEAUTY} › Oral › Toothbrushes", "toothbrushes", "toothbrush, electric toothbrush, brush set",
          "soft bristles, bamboo handle, travel case, easy grip, plaque removal, sensitive gums, recyclable head, "
          "long battery, bpa free, charcoal infused", {"color": COLOURS, "size": PACKS}, (4, 65)),
    _sold("beauty", f"{BEAUTY} › Bath › Soaps", "bar soaps", "bar soap, hand soap, body bar",
          "palm free, shea butter, sensitive skin, cruelty free, cold processed, plastic free, long lasting, "
          "goat milk, exfoliating grains, essential oils", {"scent": SCENTS, "size": PACKS}, (5, 32)),
    _sold("beauty", f"{BEAUTY} › Tools › Brushes", "makeup brushes", "brush kit, makeup brush, blending sponge",
          "synthetic hair, easy clean, storage case, cruelty free, anti slip, dense bristles, travel size, latex free, "
          "quick dry, ergonomic grip", {"color": COLOURS}, (6, 45)),
    _sold("electronics", f"{ELECTRONICS} › Audio › Headphones", "headphones", "headphones, earbuds, headset",
          "noise cancelling, long battery, fast charging, foldable design, sweat proof, hands free, stereo sound, "
          "low latency, memory foam, carrying case", {"color": COLOURS}, (19, 190)),
    _sold("electronics", f"{ELECTRONICS} › Cables › Chargers", "charging cables", "charging cable, usb cable, cord",
          "fast charging, tangle free, nylon braided, gold plated, high speed, heavy duty, magnetic tip, "
          "reinforced joint, data transfer, angled plug", {"color": COLOURS, "size": LENGTHS}, (5, 29)),
    _sold("electronics", f"{ELECTRONICS} › Cameras › Bags", "camera bags", "camera bag, lens pouch, camera backpack",
          "water resistant, padded dividers, quick access, tripod straps, rain cover, light weight, laptop sleeve, "
          "hidden pocket, shock proof, carry on", {"color": COLOURS}, (23, 150)),
    _sold("electronics", f"{ELECTRONICS} › Audio › Speakers", "portable speakers",
          "bluetooth speaker, portable speaker, shower speaker",
          "water proof, deep bass, stereo pairing, long battery, hands free, usb port, dust proof, carrying strap, "
          "voice control, easy install", {"color": COLOURS}, (16, 160)),
)
