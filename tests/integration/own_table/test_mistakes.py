"""Each kind of mistake in a mapping is named, with its key and value."""

import pytest

from recsys.config import Settings
from recsys.errors import ConfigError, SourceUnavailableError
from recsys.events.identity import Owner
from recsys.storage.external.external_events import ExternalEvents

VISITS = (
    """CREATE TABLE visits (id bigint PRIMARY KEY, visitor int, sku text, at timestamp, zoned
        timestamptz, ts bigint, day date, written text, price numeric(10, 2), tags text[], empty text,
        account uuid, flag boolean)""",
    """INSERT INTO visits SELECT g, g % 7, 'P' || g % 5, timestamp '2025-01-01' + g * interval '1 s',
        timestamptz '2025-01-01Z' + g * interval '1 s', 1735689600 + g, date '2025-01-01' + g,
        to_char(timestamp '2025-01-01' + g * interval '1 s', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 1.5,
        ARRAY['a'], NULL, '00000000-0000-0000-0000-00000000000A'::uuid, true
        FROM generate_series(1, 50) g""",
    *(f"CREATE INDEX ON visits (visitor, {name})" for name in ("zoned", "at", "ts", "written")),
    "CREATE VIEW seen AS SELECT * FROM visits",
)
RIGHT = {
    "table": "visits",
    "user_column": "visitor",
    "item_column": "sku",
    "timestamp_column": "zoned",
    "order_column": "id",
}


@pytest.fixture(scope="module")
def visits(request, tmp_path_factory):
    import uuid

    from sqlalchemy import create_engine, make_url, text

    from recsys.storage.external.external_database import parse_source_url

    server = request.getfixturevalue("postgres_server")
    name = f"map_visits_{uuid.uuid4().hex[:10]}"

    def run(url, *statements):
        engine = create_engine(parse_source_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement.replace(":", r"\:")))
        engine.dispose()

    run(server, f"CREATE DATABASE {name}")
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    run(url, *VISITS)
    yield url
    run(server, f"DROP DATABASE {name} WITH (FORCE)")


def reflected(url, own, **changed):
    keys = {**RIGHT, **changed, "url": url}
    source = ExternalEvents(Settings(events=keys), own)
    try:
        return source.resolved()
    finally:
        source.close()


MISTAKES = {
    "no such table": ({"table": "visit"}, r"events\.table = 'visit': no such .*mean visits"),
    "no such schema": ({"table": "shop.visits"}, r"events\.table = 'shop\.visits': no such table"),
    "no such column": (
        {"user_column": "visiter"},
        r"events\.user_column = 'visiter': no such column; did you mean visitor",
    ),
    "wrong type of id": (
        {"item_column": "tags"},
        r"events\.item_column = 'tags': a column of type ARRAY; expected whole numbers, UUIDs",
    ),
    "an id that is a fraction": (
        {"item_column": "price"},
        r"events\.item_column = 'price': a column of type NUMERIC\(10, 2\)",
    ),
    "wrong type of time": (
        {"timestamp_column": "flag"},
        r"events\.timestamp_column = 'flag': a column of type BOOLEAN; expected a timestamp",
    ),
    "text that is no time": (
        {"timestamp_column": "sku", "item_column": "visitor", "user_column": "account"},
        r"events\.timestamp_column = 'sku': 'P1' is no time",
    ),
    "order that is no number": (
        {"order_column": "sku"},
        r"events\.order_column = 'sku': a column of type TEXT; expected whole numbers, unique",
    ),
    "value that is no number": (
        {"value_column": "written"},
        r"events\.value_column = 'written'.*numbers",
    ),
    "numbers without a unit": (
        {"timestamp_column": "ts"},
        r"events\.unit = '': ts holds numbers; expected s, ms, us or ns; 1735689601 looks like s",
    ),
    "no time zone": (
        {"timestamp_column": "at"},
        r"events\.timezone = '': the times of at have no time zone; expected a name such as UTC",
    ),
    "unknown time zone": (
        {"timestamp_column": "at", "timezone": "Europe/Berlen"},
        r"events\.timezone = 'Europe/Berlen': expected a time zone",
    ),
    "empty column": (
        {"item_column": "empty"},
        r"events\.item_column = 'empty': empty in all of 50",
    ),
    "nobody": ({"user_column": "empty"}, r"events\.user_column = 'empty': empty in all of 50 rows"),
    "one column for two things": (
        {"item_column": "visitor"},
        r"events\.(user|item)_column = 'visitor': events\.(user|item)_column names the same",
    ),
    "a query that is no select": (
        {"table": "", "query": "DELETE FROM visits"},
        r"events\.query = 'DELETE FROM visits': expected a SELECT",
    ),
    "a query that writes": (
        {"table": "", "query": "WITH x AS (DELETE FROM visits RETURNING *) SELECT * FROM x"},
        r"DELETE: expected a SELECT that only reads",
    ),
    "two statements": (
        {"table": "", "query": "SELECT * FROM visits; SELECT 1"},
        r"events\.query = .*';' has no place here",
    ),
    "a query with a column twice": (
        {"table": "", "query": "SELECT *, sku FROM visits"},
        r"events\.query = .*gives column 'sku' twice",
    ),
    "a query that fails": (
        {"table": "", "query": "SELECT nothing FROM visits"},
        r"events\.query = .*the database refuses it: column \"nothing\" does not exist",
    ),
    "where with a comment": ({"where": "true -- x"}, r"events\.where = .*'--' has no place here"),
    "where with a statement": (
        {"where": "true; DROP TABLE x"},
        r"events\.where = .*';' has no place",
    ),
    "where out of its brackets": (
        {"where": "1 = 1) OR (1 = 1"},
        r"events\.where = .*parentheses do not match",
    ),
    "where that fails": (
        {"where": "nothing = 1"},
        r"events\.where = 'nothing = 1': the database ref",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(visits, own, mistake):
    changed, expected = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=expected):
        reflected(visits, own, **changed)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"user_column": "u"},
            r"events\.user_column = 'u': expected events\.table or events\.query",
        ),
        ({"table": "t", "query": "SELECT 1"}, r"events\.query = .*not both"),
        ({"table": "t", "timestamp_column": "x"}, r"events\.item_column = '': expected the name"),
        ({"table": "t", "item_column": "x"}, r"events\.timestamp_column = '': expected the name"),
        (
            {"table": "t", "item_column": "x", "timestamp_column": "y"},
            r"events\.user_column = '': expected this or events\.session_column",
        ),
        (
            {**RIGHT, "accept_posts": True},
            r"events\.accept_posts = True: expected false, or an event id common to both",
        ),
        ({**RIGHT, "url": "oracle://host/x"}, r"events\.url = .*expected: sqlite"),
    ],
)
def test_what_settings_alone_tell_is_told_at_once(own, keys, expected):
    with pytest.raises(ConfigError, match=expected):
        ExternalEvents(Settings(events=keys), own)


def test_a_database_that_is_not_there_is_no_mistake_of_the_mapping(own, tmp_path):
    for url in (f"sqlite:///{tmp_path}/none.db", "postgresql://postgres@127.0.0.1:9/none"):
        with pytest.raises(SourceUnavailableError) as caught:
            reflected(url, own)
        assert "127.0.0.1" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_views_queries_and_every_kind_of_time_give_the_same_events(visits, own):
    import pyarrow as pa

    ways = [
        {},
        {"table": "seen"},
        {"table": "public.visits"},
        {"table": "", "query": "SELECT *, ':x'::text AS colon FROM visits WHERE '1'::int = 1"},
        {"timestamp_column": "at", "timezone": "UTC"},
        {"timestamp_column": "ts", "unit": "s"},
        {"timestamp_column": "written"},
        {"where": "visitor >= 0 AND sku LIKE 'P%' AND '%s:x' <> ''"},
    ]
    found = []
    for way in ways:
        source = ExternalEvents(Settings(events={**RIGHT, **way, "url": visits}), own)
        rows = source.rows()
        table = pa.Table.from_batches(rows.batches(2_000_000_000_000_000)).sort_by("position")
        found.append(table)
        with own.connect() as connection:
            newest = source.history(connection, Owner("3"), limit=3).events
        assert [one.event_id for one in newest] == ["31", "38", "45"]
        assert newest[-1].timestamp_us == table["timestamp_us"][44].as_py()
        source.close()
    assert all(table == found[0] for table in found[1:])
    local = ExternalEvents(
        Settings(
            events={**RIGHT, "timestamp_column": "at", "timezone": "Europe/Berlin", "url": visits}
        ),
        own,
    )
    moved = pa.Table.from_batches(local.rows().batches(2_000_000_000_000_000)).sort_by("position")
    hour = found[0]["timestamp_us"][0].as_py() - moved["timestamp_us"][0].as_py()
    assert hour == 3_600_000_000
    local.close()


def test_uuids_are_one_text_everywhere(visits, own):
    import pyarrow as pa

    settings = Settings(events={**RIGHT, "user_column": "account", "url": visits})
    source = ExternalEvents(settings, own)
    users = pa.Table.from_batches(source.rows().batches(2_000_000_000_000_000))["user_id"]
    canonical = "00000000-0000-0000-0000-00000000000a"
    assert set(users.to_pylist()) == {canonical}
    table = source.resolved()
    assert table.mapping.key("user", canonical) is not None
    assert table.mapping.key("user", canonical.upper()) is None
    assert table.mapping.key("user", canonical.replace("-", "")) is None
    source.close()
