"""Requests answered from a table of the user's own, through REST."""

import time
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from recsys.errors import ConfigError, SourceUnavailableError
from recsys.events.identity import Owner
from recsys.events.times import to_us
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.storage.entities import item_rows
from recsys.storage.external import external_events
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.external.external_history import Asked
from recsys.web.server import serve

MANY = 5_000


@pytest.fixture
def shop(clicks, own, tmp_path, tiny_shop, publish, Service):
    """A service over a filled, indexed table; shop(**more) with other keys of [events]."""
    clicks.fill(tiny_shop.events)
    clicks.index()
    publish(tiny_shop, own, tmp_path / "models")
    with own.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    made = []

    def open_(**more):
        made.append(Service(own, clicks.settings(tmp_path / "models", tiny_shop, **more)))
        return made[-1]

    yield open_
    for service in made:
        service.app.extensions["recsys"].recommender.source.close()
        service.close()


def test_all_users_get_what_a_request_gives(shop, own, tmp_path, tiny_shop):
    shared = shop().app.extensions["recsys"]
    path, now = tmp_path / "all.parquet", datetime(2025, 3, 1, tzinfo=UTC)
    rows = answering.recommend_all(shared.settings, own, 5, path, now)
    shared.recommender.follow_once(
        to_us(now)
    )  # as that one does, and a served process all the time
    found: dict[str, list[str]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    users = {user for user in tiny_shop.events["user_id"].to_pylist() if user is not None}
    assert set(found) == users and rows == 5 * len(users)
    for user_id, item_ids in found.items():
        answer = answering.recommend(shared.recommender, Request(user_id=user_id, k=5), to_us(now))
        assert answer.sequence_length > 0 and answer.degraded is None
        assert item_ids == [one.item_id for one in answer.items], user_id


def events_of(tiny_shop, user):
    rows = enumerate(tiny_shop.events.to_pylist(), 1)
    found = [(row["timestamp_us"], number, row) for number, row in rows if row["user_id"] == user]
    return [(number, row) for _, number, row in sorted(found, key=lambda one: one[:2])]


def some_user(tiny_shop):
    return next(u for u in tiny_shop.events["user_id"].to_pylist() if u is not None)


def insert(clicks, number, user, item, us, kind="view", session=None):
    row = {
        "user_id": user,
        "item_id": item,
        "timestamp_us": us,
        "event_type": kind,
        "session_id": session,
        "event_id": None,
    }
    import pyarrow as pa

    clicks.fill(pa.Table.from_pylist([row]), first=number)


def test_an_answer_reflects_the_row_just_inserted(shop, clicks, tiny_shop):
    service, user = shop(), some_user(tiny_shop)
    mine = events_of(tiny_shop, user)
    url = f"/users/{user}/recommendations?k=5"
    before = service.get(url)
    assert before["degraded"] is None
    assert before["last_event_id"] == str(mine[-1][0])
    assert before["sequence_length"] == min(len(mine), 70)
    now = time.time_ns() // 1_000
    insert(clicks, 900_001, user, "P0007", now)
    after = service.get(url)
    assert after["last_event_id"] == "900001"
    explicit = [{"item_id": row["item_id"], "event_type": row["event_type"]} for _, row in mine]
    for place, (_, row) in enumerate(mine):
        explicit[place]["timestamp"] = row["timestamp_us"] // 1_000
        explicit[place]["session_id"] = row["session_id"]
    told = service.get(f"/users/{user}")
    assert told["events"] == len(mine) + 1
    page = service.get(f"/users/{user}/events?limit=2")
    assert [one["item_id"] for one in page["events"]] == ["P0007", mine[-1][1]["item_id"]]
    rest = [one["event_id"] for one in page["events"]]
    while page["next_cursor"]:
        page = service.get(f"/users/{user}/events?limit=50&cursor={page['next_cursor']}")
        rest += [one["event_id"] for one in page["events"]]
    assert rest == ["900001", *(str(number) for number, _ in reversed(mine))]
    assert service.get("/users/nobody-at-all/recommendations?k=3")["sequence_length"] == 0
    service.call("GET", "/users/nobody-at-all", status=404)


def test_posts_are_refused_unless_they_are_allowed(shop, tiny_shop):
    one = {"user_id": "u", "item_id": "P0001", "event_id": "e-9"}
    problem = shop().post("/events", one, status=409)
    assert "events.accept_posts" in problem["detail"]
    service, user = shop(accept_posts=True, event_id_column="eid"), some_user(tiny_shop)
    before = service.get(f"/users/{user}/recommendations?k=3")
    assert service.post("/events", {**one, "user_id": user})["accepted"] == 1
    after = service.get(f"/users/{user}/recommendations?k=3")
    assert after["last_event_id"] == "e-9"
    assert after["sequence_length"] == before["sequence_length"] + 1
    assert service.post("/events", {**one, "event_id": before["last_event_id"], "user_id": user})
    again = service.get(f"/users/{user}/recommendations?k=3")
    assert again["sequence_length"] == after["sequence_length"]  # in both tables, and counts once


def test_what_was_bought_stays_out_and_merges_count(shop, clicks, tiny_shop):
    service, user = shop(), some_user(tiny_shop)
    url = "/users/merged/recommendations?k=50&exclude_seen=all"
    service.post("/users/merged/merge", {"from": user})
    answer = service.get(url)
    mine = [row["item_id"] for _, row in events_of(tiny_shop, user)]
    assert answer["sequence_length"] == min(len(mine), 70)
    assert not set(mine) & {item["item_id"] for item in answer["items"]}


def test_an_erased_user_is_nobody_and_the_receipt_says_what_stays(shop, clicks, tiny_shop):
    service, user = shop(), some_user(tiny_shop)
    assert service.get(f"/users/{user}")["events"] > 0
    receipt = service.call("DELETE", f"/users/{user}").get_json()
    assert "was not touched" in receipt["notes"]["mapped table"]
    service.call("GET", f"/users/{user}", status=404)
    assert service.get(f"/users/{user}/events")["events"] == []
    assert service.get(f"/users/{user}/recommendations")["sequence_length"] == 0


def test_without_an_index_it_is_not_served_from(clicks, own, tmp_path, tiny_shop, Service):
    clicks.fill(tiny_shop.events.slice(0, 100))
    source = ExternalEvents(clicks.settings(tmp_path / "models"), own)
    quote = "`" if clicks.kind == "mysql" else '"'
    with pytest.raises(ConfigError) as caught:
        source.serving()
    name = "" if clicks.kind == "postgresql" else " recsys_1"
    columns = f"({quote}Kunde{quote}, {quote}Wann{quote})"
    statement = f"CREATE INDEX{name} ON {quote}Click Log{quote} {columns};"
    assert statement in str(caught.value)
    assert source.rows() is not None  # training needs none
    clicks.run(statement.rstrip(";"))
    assert ExternalEvents(clicks.settings(tmp_path / "models"), own).serving() is not None
    source.close()


def test_the_server_does_not_start_without_the_index(two_clicks, own, tmp_path, tiny_shop):
    two_clicks.fill(tiny_shop.events.slice(0, 10))
    settings = two_clicks.settings(tmp_path / "models")
    url = SecretStr(own.url.render_as_string(hide_password=False))
    database = settings.database.model_copy(update={"url": url})
    with pytest.raises(ConfigError, match="CREATE INDEX"):
        serve(settings.model_copy(update={"database": database}))


def test_a_slow_view_is_not_served_from(click_tables, own, tmp_path, tiny_shop):
    with click_tables("postgresql") as clicks:
        clicks.fill(tiny_shop.events.slice(0, 300))
        clicks.index()
        clicks.run(
            'CREATE VIEW quick AS SELECT * FROM "Click Log"',
            """CREATE VIEW slow AS SELECT * FROM "Click Log"
                WHERE pg_sleep(0.02) IS NOT NULL""",
        )
        quick = ExternalEvents(clicks.settings(tmp_path / "models", table="quick"), own)
        assert quick.serving() is not None
        quick.close()
        slow = ExternalEvents(clicks.settings(tmp_path / "models", table="slow"), own)
        with pytest.raises(ConfigError, match=r"events\.table = 'slow': the newest events of one"):
            slow.serving()
        slow.close()


def test_a_slow_answer_of_the_table_is_not_waited_for(click_tables, own, tmp_path, tiny_shop):
    with click_tables("postgresql") as clicks:
        clicks.fill(tiny_shop.events)
        clicks.index()
        settings = clicks.settings(tmp_path / "models", timeout_seconds=0.2)
        source = ExternalEvents(settings, own)
        user = some_user(tiny_shop)
        with own.connect() as connection:
            assert source.history(connection, Owner(user)).events
            clicks.run(
                'ALTER TABLE "Click Log" RENAME TO base',
                """CREATE VIEW "Click Log" AS SELECT * FROM base WHERE pg_sleep(0.1) IS NOT NULL""",
            )
            started = time.monotonic()
            with pytest.raises(SourceUnavailableError, match="too slowly"):
                source.history(connection, Owner(user))
            assert time.monotonic() - started < 5
        source.close()


def test_with_the_source_away_the_answer_is_degraded(
    shop, clicks, tiny_shop, tmp_path, Service, own
):
    service, user = shop(), some_user(tiny_shop)
    assert service.get(f"/users/{user}/recommendations?k=3")["degraded"] is None
    quote = "`" if clicks.kind == "mysql" else '"'
    clicks.run(f"ALTER TABLE {quote}Click Log{quote} RENAME TO gone")
    answer = service.get(f"/users/{user}/recommendations?k=3")
    assert "mapped event table" in answer["degraded"]
    source = service.app.extensions["recsys"].recommender.source
    with (
        pytest.raises(SourceUnavailableError, match="away just now"),
        source.external_database.connect(counting=True),
    ):
        pass
    assert answer["sequence_length"] == 0 and len(answer["items"]) == 3
    problem = service.call("GET", f"/users/{user}", status=503).get_json()
    assert "mapped event table" in problem["detail"]
    clicks.run(f"ALTER TABLE gone RENAME TO {quote}Click Log{quote}")
    deadline = time.monotonic() + 10
    while service.get(f"/users/{user}/recommendations?k=3")["degraded"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_table_that_is_away_from_the_start_is_tried_rarely(
    click_tables, own, tmp_path, monkeypatch
):
    with click_tables("postgresql") as clicks:
        clicks.index()
        tries = []

        def away(*asked):
            tries.append(1)
            raise SourceUnavailableError("the mapped event table is away")

        source = ExternalEvents(clicks.settings(tmp_path / "models"), own)
        monkeypatch.setattr(external_events, "resolve_mapping", away)
        for _ in range(3):
            with pytest.raises(SourceUnavailableError):
                source.serving()
        assert len(tries) == 1
        monkeypatch.undo()
        source.external_database._away_until = 0.0
        assert source.serving() is not None
        source.close()


def test_the_index_is_used_for_whole_numbers_asked_for_as_text(click_tables, own, tmp_path):
    with click_tables("postgresql") as clicks:
        clicks.run(
            "CREATE TABLE visits (id bigint PRIMARY KEY, visitor int, sku uuid, at timestamp)",
            f"INSERT INTO visits SELECT g, g % 997, gen_random_uuid(), "
            f"timestamp '2025-01-01' + g * interval '1 second' FROM generate_series(1, {MANY}) g",
            "CREATE INDEX ON visits (visitor, at)",
            "ANALYZE visits",
        )
        keys = {
            "table": "public.visits",
            "user_column": "visitor",
            "item_column": "sku",
            "timestamp_column": "at",
            "event_type_column": "",
            "session_column": "",
            "order_column": "id",
            "timezone": "Europe/Berlin",
        }
        source = ExternalEvents(clicks.settings(tmp_path / "models", **keys), own)
        table = source.serving()
        plans = []

        with own.connect() as connection:
            hidden = source.hidden(connection)
        found = table.newest(Asked("user", "7"), 3, hidden).events
        assert len(found) == 3 and len(found[0].item_id) == 36
        newest = [number for number in range(1, MANY + 1) if number % 997 == 7][-3:]
        assert [int(one.event_id) for one in found] == newest
        for asked in ("007", "7.0", "x", "99999999999", "-0", ""):
            assert table.newest(Asked("user", asked), 3, hidden).events == []
        select = table._select(Asked("user", ""))
        compiled = select.compile(dialect=source.external_database.plain_dialect)
        sql = str(compiled).replace(":owner", "7").replace(":row_limit", "3")
        sql = sql.replace(":earliest", "'1970-01-01'").replace(":latest", "'2030-01-01'")
        clicks.run("SELECT 1")
        from sqlalchemy import create_engine

        from recsys.storage.external.external_database import parse_source_url

        engine = create_engine(parse_source_url(clicks.url))
        with engine.connect() as connection:
            plans = connection.execute(text(f"EXPLAIN {sql}")).scalars().all()
        engine.dispose()
        source.close()
        assert any("visits_visitor_at_idx" in line for line in plans), plans
        assert not any("::text" in line for line in plans)


@pytest.mark.parametrize("kind", ["INTEGER", "INT", "BIGINT", "SMALLINT"])
def test_whole_numbers_of_64_bits_are_found_in_sqlite(click_tables, own, tmp_path, kind):
    with click_tables("sqlite") as clicks:
        clicks.run(
            f"CREATE TABLE visits (id INTEGER PRIMARY KEY, visitor {kind}, sku TEXT, at INTEGER)",
            f"INSERT INTO visits VALUES (1, {2**63 - 1}, 'a', {10**15}), (2, {2**31}, 'b', {10**15})",
            "CREATE INDEX by_visitor ON visits (visitor, at)",
        )
        keys = {
            "table": "visits",
            "user_column": "visitor",
            "item_column": "sku",
            "timestamp_column": "at",
            "event_type_column": "",
            "session_column": "",
            "order_column": "id",
        }
        source = ExternalEvents(clicks.settings(tmp_path / "models", **keys), own)
        with own.connect() as connection:
            for user, wanted in ((2**63 - 1, ["a"]), (2**31, ["b"]), (2**63, [])):
                found = source.history(connection, Owner(str(user))).events
                assert [one.item_id for one in found] == wanted
        source.close()


def test_nothing_but_select_is_sent(shop, clicks, tiny_shop, own, store_of, tmp_path):
    """Whatever goes through SQLAlchemy is heard; what the driver is given directly is a SELECT."""
    heard = []

    def listen(connection, cursor, statement, parameters, context, many):
        if connection.engine.url.database != own.url.database:
            heard.append(statement.strip().split()[0].upper())

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        service, user = shop(), some_user(tiny_shop)
        service.get(f"/users/{user}/recommendations?k=3")
        service.get(f"/users/{user}/events")
        service.get("/items/popular")
        store_of(clicks.settings(tmp_path / "models"), own).update(own)
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    assert heard.count("SELECT") > 3
    assert set(heard) <= {"SELECT", "BEGIN", "SET", "PRAGMA", "SHOW"}, set(heard)


def test_no_connection_can_write(shop, clicks, tiny_shop):
    quote = "`" if clicks.kind == "mysql" else '"'
    source = shop().app.extensions["recsys"].recommender.source
    assert source.serving() is not None
    for way in (source.external_database.connect, source.external_database.read):
        with pytest.raises(SourceUnavailableError), way() as connection:
            connection.execute(text(f"DELETE FROM {quote}Click Log{quote}"))
        source.external_database._away_until = 0.0
    assert shop().get(f"/users/{some_user(tiny_shop)}")["events"] > 0


def test_the_grant_that_is_printed_is_enough(click_tables, own, tmp_path, tiny_shop, store_of):
    with click_tables("postgresql") as clicks:
        clicks.fill(tiny_shop.events.slice(0, 500))
        clicks.index()
        grant = ExternalEvents(clicks.settings(tmp_path / "m"), own).resolved().grant
        clicks.run("DROP ROLE IF EXISTS recsys_reader")
        clicks.run("CREATE ROLE recsys_reader LOGIN", *grant.rstrip(";").split("; "))
        url = clicks.url.replace("postgres@", "recsys_reader@")
        settings = clicks.settings(tmp_path / "models", url=url)
        try:
            assert store_of(settings, own).update(own).rows == 500
            source = ExternalEvents(settings, own)
            assert source.serving() is not None
            source.close()
        finally:
            clicks.run("DROP OWNED BY recsys_reader", "DROP ROLE recsys_reader")
