"""Exports of analytics systems, row by row, to events: Segment's and RudderStack's archives, PostHog,
GA4's export to BigQuery, Snowplow's enriched events.

A row is an event of any kind; of those that name items, each item is an event here. What is none is left
out by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import orjson

from recsys.errors import InputError
from recsys.ingest.ecommerce_events import Commerce, EventNames, number
from recsys.ingest.raw_rows import Row
from recsys.ingest.segment_messages import Arrival, read_message, time_us

# Events of one row, as columns of our own; or the name by which the row is left out.
Translated = list[Row] | str
Translate = Callable[[Row], Translated]

GA4_TYPES = {
    "view_item": "view",
    "select_item": "click",
    "add_to_cart": "cart",
    "remove_from_cart": "cart_remove",
    "add_to_wishlist": "wishlist",
    "purchase": "purchase",
    "refund": "refund",
}
SNOWPLOW_TYPES = {
    "product_view": "view",
    "list_click": "click",
    "add_to_cart": "cart",
    "remove_from_cart": "cart_remove",
    "transaction": "purchase",
    "refund": "refund",
}
SNOWPLOW_ACTION = (
    "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
)
SNOWPLOW_PRODUCTS = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"
SOLD = ("purchase", "refund")  # whose value is price times quantity
_GA4_KEPT = ("quantity", "price", "coupon", "item_variant", "item_list_index")
_SNOWPLOW_KEPT = ("quantity", "price", "currency", "variant", "position")


def segment_rows(names: EventNames) -> Translate:
    """A message of the tracking API, as archives keep it: with receivedAt and originalTimestamp."""

    def translate(row: Row) -> Translated:
        received = time_us("receivedAt", row.get("receivedAt"))
        if received is None:  # by a clock of its own, which nothing here can be compared with
            row = {**row, "sentAt": None}
            received = time_us("timestamp", row.get("timestamp"))
        if received is None:
            received = time_us("originalTimestamp", row.get("originalTimestamp"))
        if received is None:
            raise InputError("timestamp", None, "expected ISO 8601, such as 2024-05-01T12:00:00Z")
        message = read_message(row, Arrival(received), names)
        if not message.events:
            name = row.get("event") if message.shown is not None else row.get("type")
            return message.left_out or str(name)
        for event in message.events:
            event["timestamp_us"] = message.timestamp_us
            del event["timestamp"]
        return [_with_text(event) for event in message.events]

    return translate


def posthog_rows(names: EventNames) -> Translate:
    """An event as PostHog exports it; its e-commerce names are Segment's."""

    def translate(row: Row) -> Translated:
        name = row.get("event")
        if not isinstance(name, str) or not name.strip():
            raise InputError("event", name, "expected the name of an event")
        properties = _object("properties", row.get("properties"))
        found: Commerce | None = names.read(name, {"properties": properties})
        if found is None or not found.events:
            return name
        at = time_us("timestamp", row.get("timestamp"))
        if at is None:
            raise InputError("timestamp", None, "expected ISO 8601")
        user_id = row.get("distinct_id") or properties.get("distinct_id")
        owner: Row = {"user_id": user_id, "session_id": properties.get("$session_id")}
        event_id = row.get("uuid") or _derived((user_id, at, name, orjson.dumps(properties)))
        rows = []
        for place, event in enumerate(found.events, 1):
            mark = f"#{place}" if found.numbered else ""
            rows.append(
                _with_text({**event, **owner, "timestamp_us": at, "event_id": f"{event_id}{mark}"})
            )
        return rows

    return translate


def ga4_row(row: Row) -> Translated:
    """A row of GA4's export to BigQuery. It has no event id, so one is made of what tells rows apart.

    >>> row = {"event_name": "view_item", "event_timestamp": "1714564800000000",
    ...        "user_pseudo_id": "1.2", "items": [{"item_id": "tea"}],
    ...        "event_params": [{"key": "ga_session_id", "value": {"int_value": "9"}}]}
    >>> [(one["user_id"], one["session_id"], one["item_id"]) for one in ga4_row(row)]
    [('1.2', '1.2.9', 'tea')]
    """
    name = row.get("event_name")
    if not isinstance(name, str) or not name:
        raise InputError("event_name", name, "expected the name of an event")
    event_type = GA4_TYPES.get(name)
    items = _objects("items", row.get("items"))
    if event_type is None or not items:
        return name
    at = _whole("event_timestamp", row.get("event_timestamp"))
    device = row.get("user_pseudo_id")
    session = _ga4_parameter(row.get("event_params"), "ga_session_id")
    order = _mapping(row.get("ecommerce")).get("transaction_id")
    batch = [row.get(f"batch_{one}") for one in ("page_id", "ordering_id", "event_index")]
    rows: list[Row] = []
    for place, item in enumerate(items):
        item_id = item.get("item_id")
        if item_id == "(not set)":
            item_id = None
        kept = {one: item[one] for one in _GA4_KEPT if item.get(one) not in (None, "", "(not set)")}
        if event_type in SOLD and order not in (None, "", "(not set)"):
            kept["order_id"] = order
        rows.append(
            {
                "user_id": row.get("user_id") or device,
                "session_id": f"{device}.{session}" if device and session is not None else None,
                "item_id": item_id,
                "event_type": event_type,
                "timestamp_us": at,
                "event_id": _derived((device, at, name, *batch, place, item_id)),
                "value": _worth(event_type, item),
                "properties": _text(kept),
            }
        )
    return rows


def snowplow_row(row: Row) -> Translated:
    """An enriched event of Snowplow: an e-commerce action, with a product entity an event.

    The time is derived_tstamp, which allows for the device's clock.
    """
    action = _of_prefix(row, SNOWPLOW_ACTION)
    if action is None:
        return str(row.get("event_name") or row.get("event") or "event")
    found = _object("snowplow_ecommerce_action", action)
    kind = found.get("type")
    event_type = SNOWPLOW_TYPES.get(kind) if isinstance(kind, str) else None
    products = _objects("product", _of_prefix(row, SNOWPLOW_PRODUCTS))
    if event_type is None or not products:
        return str(kind)
    for name in ("true_tstamp", "derived_tstamp", "collector_tstamp"):
        at = time_us(name, row.get(name))
        if at is not None:
            break
    else:
        raise InputError("derived_tstamp", None, "expected a time")
    user = row.get("user_id") or row.get("domain_userid") or row.get("network_userid")
    order = _mapping(found.get("transaction") or {}).get("transaction_id")
    event_id = row.get("event_id") or _derived((user, at, kind))
    many = len(products) > 1 or event_type in SOLD
    rows: list[Row] = []
    for place, product in enumerate(products, 1):
        kept = {one: product[one] for one in _SNOWPLOW_KEPT if product.get(one) is not None}
        if order:
            kept["order_id"] = order
        rows.append(
            {
                "user_id": user,
                "session_id": row.get("domain_sessionid"),
                "item_id": product.get("id"),
                "event_type": event_type,
                "timestamp_us": at,
                "event_id": f"{event_id}#{place}" if many else event_id,
                "value": _worth(event_type, product),
                "properties": _text(kept),
            }
        )
    return rows


def _worth(event_type: str, item: Mapping[str, object]) -> float | None:
    """Price times quantity of what is sold; None of anything else."""
    if event_type not in SOLD:
        return None
    price = number("price", item.get("price"))
    quantity = number("quantity", item.get("quantity"))
    return price if price is None or quantity is None else price * quantity


def _ga4_parameter(parameters: object, key: str) -> object:
    """The value of an event parameter, which stands in the field of its type."""
    for one in _objects("event_params", parameters):
        if one.get("key") == key:
            values = _mapping(one.get("value")).values()
            return next((value for value in values if value is not None), None)
    return None


def _of_prefix(row: Row, name: str) -> object:
    """The column `name`, or one that adds minor versions to it."""
    if name in row:
        return row[name]
    return next((value for key, value in row.items() if key.startswith(f"{name}_")), None)


def _object(field: str, value: object) -> Mapping[str, object]:
    """A JSON object, which may be written as text; of a list of one, that one."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise InputError(field, value, "expected a JSON object") from None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(field, value, "expected a JSON object")
    return value


def _objects(field: str, value: object) -> list[Mapping[str, object]]:
    if isinstance(value, str) and value:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise InputError(field, value, "expected a list of JSON objects") from None
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise InputError(field, value, "expected a list of JSON objects")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _whole(field: str, value: object) -> int:
    if isinstance(value, datetime):
        value = time_us(field, value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(field, value, "expected whole microseconds since 1970")


def _with_text(event: Row) -> Row:
    """`event` with its properties as JSON text."""
    properties = event.get("properties")
    return {**event, "properties": _text(properties) if isinstance(properties, Mapping) else None}


def _text(kept: Mapping[str, object]) -> str | None:
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode() if kept else None


def _derived(parts: Iterable[object]) -> str:
    """An id made of `parts`: the same whenever the row is read."""
    joined = "\x1f".join(str(one) for one in parts)
    return hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).hexdigest()
