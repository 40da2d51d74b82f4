"""The simulated shop's products: names, categories, styles, prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.demo.storefront.pictures import PATTERNS, picture_address
from recsys.events.array_types import Float64Array, Int64Array
from recsys.ingest.item_body import Item

CELL = 5  # products of one category in one style, at least


class Kind(NamedTuple):
    """A kind of product: where it stands in the shop, and what shoppers look at after it."""

    department: str
    next_kinds: tuple[str, str, str]  # the likeliest first


KINDS = {
    "Teapot": Kind("Kitchen", ("Mug", "Kettle", "Tea Towel")),
    "Mug": Kind("Kitchen", ("Kettle", "Coffee Grinder", "Tea Towel")),
    "Kettle": Kind("Kitchen", ("Tea Towel", "Mug", "Coffee Grinder")),
    "Tea Towel": Kind("Kitchen", ("Apron", "Mixing Bowl", "Napkin Set")),
    "Coffee Grinder": Kind("Kitchen", ("Carafe", "Mug", "Kettle")),
    "Carafe": Kind("Kitchen", ("Tablecloth", "Mug", "Napkin Set")),
    "Apron": Kind("Kitchen", ("Mixing Bowl", "Cutting Board", "Tea Towel")),
    "Mixing Bowl": Kind("Kitchen", ("Casserole", "Skillet", "Apron")),
    "Casserole": Kind("Kitchen", ("Skillet", "Cutting Board", "Tablecloth")),
    "Skillet": Kind("Kitchen", ("Cutting Board", "Chef's Knife", "Casserole")),
    "Cutting Board": Kind("Kitchen", ("Chef's Knife", "Mixing Bowl", "Apron")),
    "Chef's Knife": Kind("Kitchen", ("Teapot", "Cutting Board", "Skillet")),
    "Tablecloth": Kind("Dining", ("Napkin Set", "Candle Holder", "Vase")),
    "Napkin Set": Kind("Dining", ("Candle Holder", "Carafe", "Tablecloth")),
    "Candle Holder": Kind("Dining", ("Vase", "Table Lamp", "Picture Frame")),
    "Vase": Kind("Living", ("Plant Pot", "Picture Frame", "Side Table")),
    "Plant Pot": Kind("Living", ("Side Table", "Vase", "Floor Lamp")),
    "Picture Frame": Kind("Living", ("Wall Clock", "Vase", "Bookshelf")),
    "Wall Clock": Kind("Living", ("Pendant Light", "Picture Frame", "Armchair")),
    "Pendant Light": Kind("Living", ("Table Lamp", "Floor Lamp", "Rug")),
    "Table Lamp": Kind("Living", ("Floor Lamp", "Side Table", "Desk")),
    "Floor Lamp": Kind("Living", ("Rug", "Armchair", "Table Lamp")),
    "Side Table": Kind("Living", ("Armchair", "Table Lamp", "Rug")),
    "Armchair": Kind("Living", ("Cushion", "Throw", "Rug")),
    "Rug": Kind("Living", ("Picture Frame", "Cushion", "Armchair")),
    "Cushion": Kind("Living", ("Throw", "Rug", "Pillow")),
    "Throw": Kind("Living", ("Duvet Cover", "Armchair", "Cushion")),
    "Duvet Cover": Kind("Bedroom and Bath", ("Pillow", "Throw", "Table Lamp")),
    "Pillow": Kind("Bedroom and Bath", ("Towel Set", "Duvet Cover", "Throw")),
    "Towel Set": Kind("Bedroom and Bath", ("Bath Mat", "Soap Dispenser", "Laundry Basket")),
    "Bath Mat": Kind("Bedroom and Bath", ("Soap Dispenser", "Towel Set", "Laundry Basket")),
    "Soap Dispenser": Kind("Bedroom and Bath", ("Laundry Basket", "Towel Set", "Bath Mat")),
    "Laundry Basket": Kind("Bedroom and Bath", ("Storage Box", "Towel Set", "Bath Mat")),
    "Storage Box": Kind("Storage", ("Bookshelf", "Laundry Basket", "Desk")),
    "Bookshelf": Kind("Storage", ("Desk", "Picture Frame", "Notebook")),
    "Desk": Kind("Study", ("Desk Chair", "Table Lamp", "Bookshelf")),
    "Desk Chair": Kind("Study", ("Notebook", "Desk", "Rug")),
    "Notebook": Kind("Study", ("Fountain Pen", "Backpack", "Desk")),
    "Fountain Pen": Kind("Study", ("Backpack", "Notebook", "Desk")),
    "Backpack": Kind("Study", ("Storage Box", "Notebook", "Fountain Pen")),
}
NOUNS = tuple(KINDS)
STYLES = (
    *("Nordic", "Rustic", "Coastal", "Urban", "Botanical"),
    *("Classic", "Terracotta", "Midnight", "Linen", "Copper"),
)


@dataclass(frozen=True)
class Catalogue:
    """P products laid out as category x style x variant, by product number."""

    category_count: int
    style_count: int
    categories: Int64Array  # (P,)
    styles: Int64Array  # (P,)
    prices: Float64Array  # (P,) in euros
    cells: Int64Array  # (category, style, K) product numbers, -1 where a cell has fewer

    @property
    def size(self) -> int:
        return len(self.categories)

    def item_id(self, product: int) -> str:
        return f"P{product:0{max(4, len(str(self.size)))}d}"

    def items(self, drawn: bool = False) -> list[Item]:
        """All products as items; `drawn`: with the pictures that the demo's shop serves."""
        return [self._item(product, drawn) for product in range(self.size)]

    def next_categories(self) -> Int64Array:
        """What is looked at after each category, the likeliest first; (category, 3).

        A large shop has several series of each kind, and shoppers stay in theirs where it has the next
        kind. All KINDS are in the shop.
        """
        found = []
        for category in range(self.category_count):
            first = category - category % len(NOUNS)  # of the series
            places = [NOUNS.index(one) for one in KINDS[_noun(category)].next_kinds]
            found.append([at + first if at + first < self.category_count else at for at in places])
        return np.array(found)

    def _item(self, product: int, drawn: bool) -> Item:
        category, style = int(self.categories[product]), STYLES[self.styles[product]]
        noun, series = _noun(category), category // len(NOUNS)
        kind = f"{noun} {series + 1}" if series else noun
        cell = self.cells[category, self.styles[product]]
        variant = int(np.flatnonzero(cell == product)[0])
        pattern = tuple(PATTERNS)[variant % len(PATTERNS)]
        more = f" No. {variant // len(PATTERNS) + 1}" if variant >= len(PATTERNS) else ""
        look = "" if pattern == "plain" else f" {pattern.title()}"
        return Item(
            item_id=self.item_id(product),
            title=f"{style}{look} {kind}{more}",
            categories=(KINDS[noun].department, kind),
            price=round(float(self.prices[product]), 2),
            image=picture_address(noun, style, pattern) if drawn else None,
            available=True,
            properties=f'{{"style":"{style}"}}',
        )


def _noun(category: int) -> str:
    return NOUNS[category % len(NOUNS)]


def make_catalogue(products: int, rng: np.random.Generator) -> Catalogue:
    """`products` items spread evenly over categories and styles."""
    style_count = int(np.clip(round((products / 20) ** 0.5), 2, len(STYLES)))
    category_count = max(3, products // (CELL * style_count))
    number = np.arange(products)
    cell = number % (category_count * style_count)
    categories, styles = cell // style_count, cell % style_count
    variants = number // (category_count * style_count)
    cells = np.full((category_count, style_count, int(variants.max()) + 1), -1, np.int64)
    cells[categories, styles, variants] = number
    level = np.exp(rng.normal(3.3, 0.7, category_count))
    prices = np.maximum(1.0, level[categories] * np.exp(rng.normal(0, 0.25, products)))
    return Catalogue(
        category_count=category_count,
        style_count=style_count,
        categories=categories,
        styles=styles,
        prices=prices.round(1) - 0.05,
        cells=cells,
    )
