"""Infer the kind of each mapped column, by its type or a sample of its values, and check it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from recsys.config import EventsSettings
from recsys.errors import ConfigError
from recsys.events.times import MICROSECONDS
from recsys.ingest.iso_times import parse_iso
from recsys.storage.external.mapped_column import (
    ID_KINDS,
    NUMBER_KINDS,
    TIME_KINDS,
    Kind,
    MappedColumn,
)
from recsys.storage.external.mapping import KEYS, Mapping


def infer_kinds(
    draft: Mapping, sample: dict[str, list[Any]], settings: EventsSettings
) -> dict[str, MappedColumn]:
    """The columns with the kinds they really have, by name; `sample`: values by meaning.

    Raises ConfigError naming the key of a column that cannot be what it is said to be.
    """
    by_values = draft.dialect == "sqlite" or bool(draft.query)
    found: dict[str, MappedColumn] = {}
    for meaning, one in draft.columns.items():
        key, values = f"events.{KEYS[meaning]}", [v for v in sample[meaning] if v is not None]
        if by_values and values:
            one = MappedColumn(one.name, _kind_of_values(values, meaning), one.declared)
        elif by_values and one.kind == "other":
            fallback: Kind = "integer" if meaning in ("order", "value") else "text"
            one = MappedColumn(one.name, fallback, one.declared)
        if sample[meaning] and not values and meaning in ("item", "timestamp"):
            raise ConfigError(
                key, one.name, f"empty in all of {len(sample[meaning])} rows looked at"
            )
        _check_kind(key, meaning, one, settings)
        if meaning == "timestamp":
            _check_times(one, values, settings)
        found[one.name] = one
    owners = [sample[m] for m in ("user", "session") if m in draft.columns]
    if owners[0] and all(all(v is None for v in values) for values in owners):
        key = "user_column" if "user" in draft.columns else "session_column"
        problem = f"empty in all of {len(owners[0])} rows looked at, so nobody's sequence is known"
        raise ConfigError(f"events.{key}", getattr(settings, key), problem)
    return found


def _check_kind(key: str, meaning: str, one: MappedColumn, settings: EventsSettings) -> None:
    allowed: Sequence[Kind]
    if meaning == "order":
        allowed, expected = ("integer",), "whole numbers, unique and growing"
    elif meaning == "timestamp":
        allowed, expected = TIME_KINDS, "a timestamp, a date, ISO 8601 text or a number"
    elif meaning == "value":
        allowed, expected = NUMBER_KINDS, "numbers"
    else:
        allowed, expected = ID_KINDS, "whole numbers, UUIDs or text"
    if one.kind not in allowed:
        declared = one.declared or one.kind
        raise ConfigError(key, one.name, f"a column of type {declared}; expected {expected}")


def _check_times(one: MappedColumn, values: list[Any], settings: EventsSettings) -> None:
    if one.kind in NUMBER_KINDS:
        if not settings.unit:
            numbers = [value for value in values if isinstance(value, int | float | Decimal)]
            first = float(numbers[0]) if numbers else 0.0
            fits = [u for u, f in MICROSECONDS.items() if 6e14 < first * f < 4e15]
            guess = f"; {numbers[0]} looks like {fits[0]}" if fits else ""
            problem = f"{one.name} holds numbers; expected s, ms, us or ns{guess}"
            raise ConfigError("events.unit", settings.unit, problem)
        return
    if one.kind == "text":
        import pyarrow as pa

        texts = [value for value in values if isinstance(value, str)]
        read = parse_iso(pa.array(texts, pa.string()))
        if texts and not read.readable.any():
            problem = (
                f"{texts[0]!r} is no time; expected ISO 8601 text such as 2024-05-01T12:00:00Z"
            )
            raise ConfigError("events.timestamp_column", one.name, problem)
        zoned = bool(texts) and bool(read.has_offset[read.readable].all())
        if zoned:
            return
    if one.kind != "aware" and not settings.timezone:
        problem = f"the times of {one.name} have no time zone; expected a name such as UTC"
        raise ConfigError("events.timezone", settings.timezone, problem)


def _kind_of_values(values: list[Any], meaning: str) -> Kind:
    """The kind that most values of a column have; those of another are judged row by row."""
    kinds: dict[type, Kind] = {
        int: "integer",
        float: "float",
        Decimal: "decimal",
        UUID: "uuid",
        str: "text",
        date: "date",
    }
    seen: Counter[Kind] = Counter()
    for value in values:
        if isinstance(value, datetime):
            seen["naive" if value.tzinfo is None else "aware"] += 1
        else:
            seen[kinds.get(type(value), "other")] += 1
    numbers = {kind for kind in NUMBER_KINDS if seen[kind]}
    if meaning in ("timestamp", "value") and len(numbers) > 1:
        seen["float"] = sum(seen.pop(kind) for kind in numbers)
    return seen.most_common(1)[0][0]
