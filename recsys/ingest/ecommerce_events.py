"""The e-commerce events of Segment's specification (v2), which others speak too: name and properties to
rows of events, rows of items, and a list that was viewed.

Names are taken in any case. Those of the specification's first version are known beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from recsys.config import TrackedEvent
from recsys.errors import InputError
from recsys.ingest.json_paths import taken_apart

MAX_PRODUCTS = 500  # of one message
PRODUCT_PATH = "properties.product_id"
PRODUCTS = "properties.products[]"

EventRow = dict[str, object]  # as POST /events takes it
ItemRow = dict[str, object]  # as PUT /items takes it

Worth = Literal["", "price", "rating"]


@dataclass(frozen=True, slots=True)
class Action:
    """What an event of some name is."""

    event_type: str
    many: bool = False  # of `properties.products`, else of one product
    worth: Worth = ""  # what its value is: price times quantity, or the rating


@dataclass(frozen=True, slots=True)
class ListView:
    """A list of products that was shown."""

    item_ids: tuple[object, ...]
    list_id: object
    recommendation_id: object


@dataclass(frozen=True, slots=True)
class Commerce:
    """What an event of some name and properties means."""

    events: tuple[EventRow, ...] = ()  # without owner, time and id
    numbered: bool = False  # whether they are members of a list, which may be several
    items: tuple[ItemRow, ...] = ()  # what is told of items beside their ids
    shown: ListView | None = None


LIST_VIEWED = "product list viewed"
ACTIONS = {
    "product viewed": Action("view"),
    "product clicked": Action("click"),
    "product added": Action("cart"),
    "product removed": Action("cart_remove"),
    "product added to wishlist": Action("wishlist"),
    "wishlist product added to cart": Action("cart"),
    "order completed": Action("purchase", many=True, worth="price"),
    "order refunded": Action("refund", many=True, worth="price"),
    "order cancelled": Action("refund", many=True, worth="price"),
    "product shared": Action("share"),
    "product reviewed": Action("review", worth="rating"),
}
# Other ways to write a name: those of the first version, and what stands beside it.
ALIASES = {
    "viewed product": "product viewed",
    "clicked product": "product clicked",
    "added product": "product added",
    "removed product": "product removed",
    "added product to wishlist": "product added to wishlist",
    "completed order": "order completed",
    "refunded order": "order refunded",
    "cancelled order": "order cancelled",
    "order canceled": "order cancelled",
    "shared product": "product shared",
    "reviewed product": "product reviewed",
    "viewed product category": LIST_VIEWED,
    "viewed product list": LIST_VIEWED,
}
# Kept with an event: of its product, else of the message.
KEPT = (
    *("order_id", "cart_id", "wishlist_id", "checkout_id", "list_id", "position", "quantity"),
    *("price", "currency", "coupon", "variant", "rating"),
)
_ITEM_PROPERTIES = ("brand", "variant", "url", "currency")


class EventNames:
    """What events of each name are: those that a team has named itself, before those of the specification."""

    def __init__(self, own: Mapping[str, TrackedEvent] | None = None) -> None:
        self._own = {folded(name): one for name, one in (own or {}).items()}

    def read(self, name: str, message: Mapping[str, object]) -> Commerce | None:
        """What a message's event of `name` means; None where the name maps to nothing.

        `message` has `properties`, and whatever else a path of one's own leads through. Raises
        InputError.

        >>> sold = {"price": "3.50", "products": [{"sku": "tea", "price": 2, "quantity": 3}]}
        >>> found = EventNames().read("Completed Order", {"properties": sold})
        >>> [(row["item_id"], row["event_type"], row["value"]) for row in found.events]
        [('tea', 'purchase', 6.0)]
        """
        properties = message.get("properties")
        if properties is None:
            properties = {}
        if not isinstance(properties, Mapping):
            raise InputError("properties", properties, "expected a JSON object")
        key = folded(name)
        own = self._own.get(key)
        if own is not None:
            return _of_path(own, message, properties)
        key = ALIASES.get(key, key)
        if key == LIST_VIEWED:
            return _list_view(properties)
        action = ACTIONS.get(key)
        if action is None:
            return None
        products = _products(properties) if action.many else [properties]
        if not products:  # a refund of a whole order, say: no item is named
            return None
        return Commerce(
            events=tuple(_event(action, one, properties) for one in products),
            numbered=action.many,
            items=tuple(filter(None, (_item(one, properties) for one in products))),
        )


def folded(name: str) -> str:
    """A name as names are compared.

    >>> folded("  Product  Viewed ")
    'product viewed'
    """
    return " ".join(name.split()).casefold()


def item_id_of(product: Mapping[str, object]) -> object:
    """The product's id, else its stock-keeping unit."""
    given = product.get("product_id")
    return product.get("sku") if given is None or given == "" else given


def _products(properties: Mapping[str, object]) -> list[Mapping[str, object]]:
    products = properties.get("products")
    if products is None:
        return []
    if not isinstance(products, list):
        raise InputError(PRODUCTS, products, "expected a list")
    if len(products) > MAX_PRODUCTS:
        raise InputError(PRODUCTS, len(products), f"expected at most {MAX_PRODUCTS}")
    for one in products:
        if not isinstance(one, Mapping):
            raise InputError(PRODUCTS, one, "expected a JSON object")
    return products


def _event(
    action: Action, product: Mapping[str, object], properties: Mapping[str, object]
) -> EventRow:
    row = _kept(product, properties)
    row |= {"item_id": item_id_of(product), "event_type": action.event_type}
    if action.worth == "price" and (price := number("price", product.get("price"))) is not None:
        quantity = number("quantity", product.get("quantity"))
        row["value"] = price * (1.0 if quantity is None else quantity)
    elif action.worth == "rating":
        row["value"] = number("rating", product.get("rating"))
    return row


def _of_path(
    own: TrackedEvent, message: Mapping[str, object], properties: Mapping[str, object]
) -> Commerce | None:
    """Events of a team's own name: one a member, where the path leads through a list."""
    head, many, _ = own.item.partition("[]")
    found = taken_apart(dict(message), [own.item], [head] if many else [])
    if len(found) > MAX_PRODUCTS:
        raise InputError(own.item, len(found), f"expected at most {MAX_PRODUCTS}")
    if not found:
        return None
    kept = _kept({}, properties)
    rows = ({**kept, "item_id": one[own.item], "event_type": own.type} for one in found)
    items = [_item(properties, properties)] if own.item == PRODUCT_PATH else []
    return Commerce(tuple(rows), numbered=bool(many), items=tuple(filter(None, items)))


def _list_view(properties: Mapping[str, object]) -> Commerce | None:
    products = _products(properties)
    if not products:
        return None
    list_id = properties.get("list_id")
    shown = ListView(
        item_ids=tuple(item_id_of(one) for one in products),
        list_id=properties.get("category") if list_id is None else list_id,
        recommendation_id=properties.get("recommendation_id"),
    )
    items = filter(None, (_item(one, properties) for one in products))
    return Commerce(items=tuple(items), shown=shown)


def _kept(product: Mapping[str, object], properties: Mapping[str, object]) -> EventRow:
    """What is kept of an event beside its columns, as the columns that it fills."""
    kept: dict[str, object] = {}
    for name in KEPT:
        value = product.get(name)
        if value is None:
            value = properties.get(name)
        if isinstance(value, str | int | float) and value != "":
            kept[name] = value
    row: EventRow = {"properties": kept} if kept else {}
    given = product.get("recommendation_id") or properties.get("recommendation_id")
    if given is not None:
        row["recommendation_id"] = given
    return row


def _item(product: Mapping[str, object], properties: Mapping[str, object]) -> ItemRow | None:
    """What is told of a product beside its id; None: nothing."""
    category = product.get("category")
    known: ItemRow = {
        "title": product.get("name"),
        "categories": [category] if isinstance(category, str) and category.strip() else None,
        "price": number("price", product.get("price")),
        "image": product.get("image_url"),
    }
    more = {name: product.get(name) for name in _ITEM_PROPERTIES}
    if known["price"] is not None and more["currency"] is None:
        more["currency"] = properties.get("currency")
    known["properties"] = {name: one for name, one in more.items() if one not in (None, "")} or None
    known = {name: one for name, one in known.items() if one not in (None, "")}
    return {"item_id": item_id_of(product), **known} if known else None


def number(field: str, value: object) -> float | None:
    """The number that `value` is or spells; None where it is missing. Raises InputError.

    >>> number("price", "18.99"), number("price", 3), number("price", "")
    (18.99, 3.0, None)
    """
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if math.isfinite(found):
            return found
    raise InputError(field, value, "expected a finite number")
