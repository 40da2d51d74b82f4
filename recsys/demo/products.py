"""The simulated shop's products: names, categories, styles, prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.array_types import Float64Array, Int64Array
from recsys.ingest.item_body import Item

CELL = 5  # products of one category in one style, at least

NOUNS = (
    *("Teapot", "Mug", "Kettle", "Carafe", "Coffee Grinder", "Cutting Board", "Chef's Knife"),
    *("Skillet", "Casserole", "Mixing Bowl", "Apron", "Tablecloth", "Napkin Set", "Candle Holder"),
    *("Vase", "Picture Frame", "Wall Clock", "Table Lamp", "Floor Lamp", "Pendant Light", "Rug"),
    *("Cushion", "Throw", "Duvet Cover", "Pillow", "Towel Set", "Bath Mat", "Soap Dispenser"),
    *("Laundry Basket", "Storage Box", "Bookshelf", "Side Table", "Armchair", "Desk", "Desk Chair"),
    *("Notebook", "Fountain Pen", "Backpack", "Umbrella", "Plant Pot"),
)
DEPARTMENTS = ("Kitchen", "Dining", "Living", "Bedroom and Bath", "Storage", "Study")
STYLES = (
    *("Nordic", "Rustic", "Coastal", "Urban", "Botanical"),
    *("Classic", "Terracotta", "Midnight", "Linen", "Copper"),
)
NAMES = ("Alva", "Bruno", "Clara", "Dorian", "Elin", "Felix", "Greta", "Hugo", "Ida", "Jonas")


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

    def items(self) -> list[Item]:
        """All products as items."""
        return [self._item(product) for product in range(self.size)]

    def _item(self, product: int) -> Item:
        category, style = int(self.categories[product]), int(self.styles[product])
        noun = NOUNS[category % len(NOUNS)]
        series = category // len(NOUNS)
        noun = f"{noun} {series + 1}" if series else noun
        department = DEPARTMENTS[category % len(NOUNS) * len(DEPARTMENTS) // len(NOUNS)]
        place = int(np.flatnonzero(self.cells[category, style] == product)[0])
        name = NAMES[place % len(NAMES)] + (f" {place // len(NAMES) + 1}" * (place >= len(NAMES)))
        return Item(
            item_id=self.item_id(product),
            title=f"{STYLES[style]} {noun} {name}",
            categories=(department, noun),
            price=round(float(self.prices[product]), 2),
            image=None,
            available=True,
            properties=f'{{"style":"{STYLES[style]}"}}',
        )


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
