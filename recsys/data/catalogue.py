"""The simulated shop's products: names, categories, styles, prices.

Legend: P products, K products of a cell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.item_check import Item

Int64Array = NDArray[np.int64]

CELL = 5  # products of one category in one style, at least

# department -> what it sells, with a usual price in euros
ASSORTMENT: dict[str, dict[str, float]] = {
    "Kitchen": {
        **{"Teapot": 35, "Mug": 12, "Kettle": 45, "Carafe": 24, "Coffee Grinder": 49},
        **{"Cutting Board": 28, "Chef's Knife": 59, "Skillet": 55, "Casserole": 89},
        **{"Mixing Bowl": 19, "Apron": 25},
    },
    "Dining": {"Tablecloth": 39, "Napkin Set": 16, "Candle Holder": 18, "Dinner Plate": 14},
    "Living": {
        **{"Vase": 29, "Picture Frame": 17, "Wall Clock": 45, "Table Lamp": 69},
        **{"Floor Lamp": 139, "Pendant Light": 99, "Rug": 149, "Cushion": 25, "Throw": 49},
        **{"Armchair": 399, "Side Table": 119, "Plant Pot": 15},
    },
    "Bedroom and Bath": {
        **{"Duvet Cover": 69, "Pillow": 39, "Towel Set": 35, "Bath Mat": 29},
        **{"Soap Dispenser": 17, "Laundry Basket": 45},
    },
    "Storage and Study": {
        **{"Storage Box": 22, "Bookshelf": 229, "Desk": 279, "Desk Chair": 189},
        **{"Notebook": 9, "Fountain Pen": 39, "Backpack": 79},
    },
}
KINDS = tuple(
    (department, noun, price)
    for department, nouns in ASSORTMENT.items()
    for noun, price in nouns.items()
)
RANGES = ("", "Travel", "Large", "Mini", "Outdoor", "Kids'", "Studio", "Hotel", "Garden", "Gift")
# style -> the colours it comes in
STYLES: dict[str, tuple[str, ...]] = {
    "Nordic": ("white", "birch", "fog grey"),
    "Rustic": ("oak", "walnut", "cream"),
    "Coastal": ("sand", "sea blue", "white"),
    "Urban": ("graphite", "concrete grey", "black"),
    "Botanical": ("fern green", "sage", "olive"),
    "Classic": ("ivory", "burgundy", "navy"),
    "Terracotta": ("terracotta", "ochre", "rust"),
    "Midnight": ("midnight blue", "black", "indigo"),
    "Linen": ("natural", "flax", "off-white"),
    "Copper": ("copper", "rose", "bronze"),
}
BRANDS = (
    *("Aldermoor", "Birk & Sohn", "Casa Lumen", "Dunlin", "Estuary", "Fjordhus", "Gable"),
    *("Hearthline", "Isola", "Juniper Lane", "Kestrel", "Lowfield"),
)
NAMES = ("Alva", "Bruno", "Clara", "Dorian", "Elin", "Felix", "Greta", "Hugo", "Ida", "Jonas")


@dataclass(frozen=True)
class Catalogue:
    """P products laid out as category x style x variant, by product number."""

    category_count: int
    style_count: int
    categories: Int64Array  # (P,)
    styles: Int64Array  # (P,)
    variants: Int64Array  # (P,) place within the cell
    prices: NDArray[np.float64]  # (P,) in euros
    brands: Int64Array  # (P,) into BRANDS
    colours: Int64Array  # (P,) into the style's colours
    cells: Int64Array  # (category, style, K) product numbers, -1 where a cell has fewer

    @property
    def size(self) -> int:
        return len(self.categories)

    def item_ids(self) -> list[str]:
        """The id of each product."""
        width = max(4, len(str(self.size)))
        return [f"P{product:0{width}d}" for product in range(self.size)]

    def items(self) -> list[Item]:
        """All products as items."""
        return [self._item(product, item_id) for product, item_id in enumerate(self.item_ids())]

    def _item(self, product: int, item_id: str) -> Item:
        department, kind = category_name(int(self.categories[product]))
        style = tuple(STYLES)[self.styles[product]]
        variant = int(self.variants[product])
        name = NAMES[variant % len(NAMES)]
        if variant >= len(NAMES):
            name += f" {variant // len(NAMES) + 1}"
        properties = {
            "brand": BRANDS[self.brands[product]],
            "colour": STYLES[style][self.colours[product]],
            "style": style,
        }
        return Item(
            item_id=item_id,
            title=f"{style} {kind} {name}",
            categories=(department, kind),
            price=round(float(self.prices[product]), 2),
            image=None,
            available=True,
            properties=json.dumps(properties, separators=(",", ":"), sort_keys=True),
        )


def category_name(category: int) -> tuple[str, str]:
    """Department and name of a category.

    >>> category_name(0), category_name(40)
    (('Kitchen', 'Teapot'), ('Kitchen', 'Travel Teapot'))
    """
    department, noun, _ = KINDS[category % len(KINDS)]
    number = category // len(KINDS)
    prefix = RANGES[number] if number < len(RANGES) else f"Series {number}"
    return department, f"{prefix} {noun}".strip()


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
    usual = np.array([price for _, _, price in KINDS])[categories % len(KINDS)]
    colours = np.array([len(colours) for colours in STYLES.values()])
    return Catalogue(
        category_count=category_count,
        style_count=style_count,
        categories=categories,
        styles=styles,
        variants=variants,
        # shop prices: 23.95, not 23.91
        prices=np.ceil(usual * np.exp(rng.normal(0, 0.25, products))) - 0.05,
        brands=rng.integers(0, len(BRANDS), products),
        colours=rng.integers(0, colours[styles]),
        cells=cells,
    )
