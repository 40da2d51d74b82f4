"""Conversions under random histories, held against one slow query over events and answers."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from sqlalchemy import delete, select, text

from recsys.errors import ConflictError
from recsys.events.fields import Event
from recsys.events.times import HOUR_US, MINUTE_US
from recsys.steering.event_value import ConversionRules
from recsys.storage.entities import (
    conversion_attribution,
    conversion_rows,
    erasure_rows,
    event_rows,
    impression_rows,
    user_rows,
)
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.schema.tables import conversions, conversions_due, events

START_US = 1_000 * HOUR_US
TYPES = ConversionRules(
    frozenset({"buy"}), frozenset({"return"}), currency="EUR", window_us=24 * HOUR_US
)
JSON_PARTS = {
    "sqlite": {
        "items": "json_each(i.items) AS e",
        "item": "json_extract(e.value, '$[0]')",
        "shown": "json_each(i.shown) AS n WHERE n.value",
    },
    "postgresql": {
        "items": "json_array_elements(i.items::json) AS e",
        "item": "e.value->>0",
        "shown": "json_array_elements_text(i.shown::json) AS n(value) WHERE n.value",
    },
}
# What every conversion counts for, from nothing but raw events, answers and merges.
ORACLE = """
WITH done AS (
    SELECT e.id, e.event_type, e.item_id, e.session_id, e.timestamp_us AS at_us,
        abs(e.value) AS amount, e.recommendation_id AS named,
        coalesce(
            (SELECT 'u:' || a.user_id FROM aliases a
             WHERE a.alias_key = coalesce('u:' || e.user_id, 's:' || e.session_id)),
            coalesce('u:' || e.user_id, 's:' || e.session_id)
        ) AS person
    FROM events e WHERE e.event_type IN ('buy', 'return')
), held AS (
    SELECT i.recommendation_id AS answer, i.created_at_us AS at_us, i.scenario, i.user_id,
        i.session_id, {item} AS item_id,
        coalesce((SELECT 'u:' || a.user_id FROM aliases a WHERE a.alias_key = 'u:' || i.user_id),
            'u:' || i.user_id) AS user_is,
        (SELECT 'u:' || a.user_id FROM aliases a WHERE a.alias_key = 's:' || i.session_id)
            AS session_is,
        i.shown IS NULL OR EXISTS (SELECT 1 FROM {shown} = {item}) AS was_shown
    FROM impressions i, {items}
), named AS (
    SELECT b.id, h.answer, h.scenario, 1.0 AS share
    FROM done b JOIN held h ON h.answer = b.named AND h.item_id = b.item_id
    WHERE b.event_type = 'buy'
), seen AS (
    SELECT b.id, h.answer, h.scenario,
        row_number() OVER (PARTITION BY b.id ORDER BY h.at_us DESC, h.answer DESC) AS place,
        count(*) OVER (PARTITION BY b.id) AS number
    FROM done b JOIN held h ON h.item_id = b.item_id AND h.was_shown
        AND h.at_us BETWEEN b.at_us - :window AND b.at_us
        AND (h.user_is = b.person
            OR ((h.session_id = b.session_id OR h.session_is = b.person
                    OR 's:' || h.session_id = b.person)
                AND (h.user_is IS NULL OR b.person LIKE 's:%')))
    WHERE b.event_type = 'buy' AND b.id NOT IN (SELECT id FROM named)
), touched AS (
    SELECT id, answer, scenario, share FROM named
    UNION ALL
    SELECT id, answer, scenario, CASE WHEN :touch = 'last' THEN 1.0 ELSE 1.0 / number END
    FROM seen WHERE :touch = 'any' OR place = 1
), returned AS (
    SELECT r.id, r.amount, (
        SELECT b.id FROM done b WHERE b.event_type = 'buy' AND b.person = r.person
            AND b.item_id = r.item_id AND b.at_us <= r.at_us
        ORDER BY b.at_us DESC, b.id DESC LIMIT 1
    ) AS of_buy
    FROM done r WHERE r.event_type = 'return'
)
SELECT coalesce(t.scenario, '') AS scenario, sum(b.amount * coalesce(t.share, 1)) AS value,
    sum(coalesce(t.share, 1)) AS bought, 0 AS returned
FROM done b LEFT JOIN touched t ON t.id = b.id WHERE b.event_type = 'buy' GROUP BY 1
UNION ALL
SELECT coalesce(t.scenario, ''), -sum(r.amount * coalesce(t.share, 1)), 0,
    sum(coalesce(t.share, 1))
FROM returned r LEFT JOIN touched t ON t.id = r.of_buy GROUP BY 1
"""


class History:
    """A shop with few users and items, in which anything may happen next."""

    def __init__(self, database, seed, rules):
        self.database, self.rules = database, rules
        self.rng = random.Random(seed)
        self.now_us = START_US
        self.users = [f"u{number}" for number in range(4)]
        self.answers = []
        self.numbers = iter(range(10**6))

    def owner(self):
        user = self.rng.choice([*self.users, None])
        session = self.rng.choice(["s0", "s1", "s2", "s3", None])
        return user, session if user or session else "s0"

    def answer(self):
        user, session = self.owner()
        name = f"r{next(self.numbers)}"
        held = self.rng.sample("abcd", 3)
        shown = tuple(held[:1]) if self.rng.random() < 0.3 else None
        scenario = self.rng.choice(["home", "cart"])
        items = tuple((item, "lstm", 0.5) for item in held)
        given = Impression(
            name, self.now_us, user, session, "v", "champion", scenario, items, shown=shown
        )
        with self.database.begin() as connection:
            impression_rows.insert_impressions(connection, [given])
        self.answers.append(name)

    def event(self, kind="buy"):
        user, session = self.owner()
        late = self.rng.random() < 0.3  # by up to two days
        at_us = self.now_us - (self.rng.randrange(48 * HOUR_US) if late else 0)
        named = self.rng.choice([None, None, *self.answers[-3:], "r-unknown"])
        one = Event(
            user_id=user,
            session_id=session,
            item_id=self.rng.choice("abcd"),
            event_type=kind,
            timestamp_us=max(at_us, START_US),
            event_id=f"e{next(self.numbers)}",
            value=float(self.rng.randrange(1, 64)),
            recommendation_id=named,
        )
        with self.database.begin() as connection:
            event_rows.insert_events(connection, [one], self.now_us)

    def merge(self):
        other = self.rng.choice([*(f"u:{user}" for user in self.users), "s:s1", "s:s2"])
        with self.database.begin() as connection:
            try:
                user_rows.merge(connection, self.rng.choice(self.users), other, self.now_us)
            except ConflictError:
                return

    def take_back(self):
        """As undoing an import does: events go, some of them conversions."""
        with self.database.begin() as connection:
            ids = list(connection.execute(select(events.c.id)).scalars())
            chosen = events.c.id.in_(self.rng.sample(ids, len(ids) // 8))
            conversion_rows.take_back(connection, chosen)
            connection.execute(delete(events).where(chosen))

    def erase(self):
        user = self.rng.choice(self.users)
        with self.database.begin() as connection:
            gone = erasure_rows.person_keys(connection, user)
            erasure_rows.erase(connection, user, self.now_us)
        kept = [one for one in self.users if f"u:{one}" not in gone]
        self.users = [*kept, f"u{next(self.numbers)}", f"u{next(self.numbers)}"][:5]

    def step(self):
        kinds = ["answer", "event", "return", "merge", "take_back", "erase"]
        kind = self.rng.choices(kinds, [40, 35, 12, 5, 2, 1])[0]
        self.event("return") if kind == "return" else getattr(self, kind)()
        self.now_us += self.rng.randrange(2 * HOUR_US)

    def attribute(self):
        last = None
        while True:
            with self.database.begin() as connection:
                _, last = conversion_attribution.attribute_batch(
                    connection, self.rules, self.now_us, 10 * MINUTE_US, 7, last
                )
            if last is None:
                break
        with self.database.begin() as connection:
            conversion_attribution.attribute_due(connection, self.rules)
            assert connection.execute(select(conversions_due)).first() is None

    def expected(self):
        with self.database.connect() as connection:
            statement = ORACLE.format(**JSON_PARTS[self.database.dialect])
            given = {"window": self.rules.window_us, "touch": self.rules.touch}
            rows = connection.execute(text(statement), given).all()
        return _sums((row.scenario, row.value, row.bought, row.returned) for row in rows)

    def found(self):
        with self.database.connect() as connection:
            rows = connection.execute(select(conversions)).all()
        shares = defaultdict(float)
        for row in rows:
            shares[row.event_row_id] += row.share
        assert all(share == pytest.approx(1) for share in shares.values())
        return _sums(
            (
                row.scenario,
                row.value,
                0 if row.is_return else row.share,
                row.share if row.is_return else 0,
            )
            for row in rows
        )


def _sums(rows):
    found = defaultdict(lambda: [0.0, 0.0, 0.0])
    for scenario, *figures in rows:
        found[scenario] = [a + float(b) for a, b in zip(found[scenario], figures, strict=True)]
    return {name: pytest.approx(figures, abs=1e-6) for name, figures in found.items()}


@pytest.mark.parametrize(("touch", "seed"), [("last", 1), ("any", 2)])
def test_sums_are_those_of_a_slow_query_whatever_happens(database, touch, seed):
    _hold_against_the_slow_query(database, touch, seed, rounds=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 9))
@pytest.mark.parametrize("touch", ["last", "any"])
def test_sums_are_those_of_a_slow_query_through_long_histories(database, touch, seed):
    _hold_against_the_slow_query(database, touch, seed, rounds=25)


def _hold_against_the_slow_query(database, touch, seed, rounds):
    rules = ConversionRules(
        TYPES.types, TYPES.returns, currency="EUR", window_us=TYPES.window_us, touch=touch
    )
    history = History(database, seed, rules)
    history.answer()
    for _ in range(rounds):
        for _ in range(20):
            history.step()
        history.attribute()
        found, expected = history.found(), history.expected()
        assert set(found) == set(expected)
        assert all(found[name].expected == expected[name] for name in found)
    assert len(found) == 3  # home, cart, and what counts for no answer
