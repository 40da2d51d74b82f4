"""The page on the data's quality, over real databases: from rows and events to what is shown."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from recsys.events.times import DAY_US, to_us
from recsys.ingest.event_body import check_event
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.streams.broker import Partition
from recsys.ops import upkeep
from recsys.storage.dashboard import activity_rows, quality_rows
from recsys.storage.dashboard.quality_rows import KEPT_DAYS, LOOKED_AT
from recsys.storage.entities import event_rows, rejected_rows, stream_rows, unmapped_rows
from recsys.storage.entities.rejected_rows import add_rejections
from recsys.storage.entities.stream_rows import Move
from recsys.web.cursors import write_cursor
from tests.integration.test_admin_access import log_in

NOW = datetime.now(UTC)
MARKUP = '<img src=x onerror="alert(1)">'


@pytest.fixture
def client(service, add_account):
    with service.database.begin() as connection:
        add_account(connection, "ada", "viewer")
    return log_in(service, "ada")[0]


def text(answer):
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_data(as_text=True)


def post_days(database, counts):
    """`counts`: days ago -> events of that day, at noon and some hours on."""
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    with database.begin() as connection:
        for ago, number in counts.items():
            start = midnight - timedelta(days=ago)
            rows = [
                check_event(
                    {
                        "user_id": f"u{at % 30}",
                        "item_id": f"odd-{at % 7}",
                        "timestamp": (start + timedelta(minutes=at * 1_430 // number)).isoformat(),
                    },
                    to_us(NOW),
                )
                for at in range(number)
            ]
            event_rows.insert_events(connection, rows, to_us(NOW))


def refresh(service, say=lambda line: None):
    activity_rows.count_events(service.database, to_us(NOW))
    settings = service.app.extensions["recsys"].settings
    return upkeep.report_quality(settings, service.database, NOW, say)


def reject(database, source, reasons, raw="{}"):
    rejections = [Rejection(at, reason, raw) for at, reason in enumerate(reasons)]
    with database.begin() as connection:
        add_rejections(connection, source, rejections, to_us(NOW))


def test_before_anything_happened_the_page_says_what_to_do(service, client):
    page = text(client.get("/admin/data-quality"))
    assert "The events have not been analysed yet" in page and "recsys jobs run refresh" in page
    assert client.get("/admin/data-quality/report.json").status_code == 404
    assert "The quarantine is empty" in text(client.get("/admin/data-quality/quarantine"))


def test_names_that_map_to_nothing_are_shown_most_first(service, client):
    assert "without a mapping" not in text(client.get("/admin/data-quality"))
    with service.database.begin() as connection:
        counted = {"Signed Up": 2, MARKUP: 9_000}
        unmapped_rows.count_names(connection, "segment", counted, to_us(NOW))
    page = text(client.get("/admin/data-quality"))
    told = page.partition('id="unmapped"')[2].partition("</section>")[0]
    assert MARKUP not in told and "&lt;img" in told
    assert told.index("9,000") < told.index("Signed Up")


def test_what_stands_out_is_shown(service, client):
    usual = dict.fromkeys(range(2, 20), 60)
    post_days(service.database, {**usual, 12: 5, 5: 300, 1: 60})
    assert refresh(service) > 0
    page = text(client.get("/admin/data-quality?range=30d"))
    assert "Analysed" in page and "not been analysed" not in page
    odd = page.partition('id="odd"')[2].partition("</section>")[0]
    days = re.findall(r"data-utc>(\d{4}-\d\d-\d\d)<", odd)
    assert days == [f"{NOW - timedelta(days=ago):%Y-%m-%d}" for ago in (5, 12)]
    assert "+400%" in odd and "-92%" in odd
    silences = page.partition('id="silences"')[2].partition("</section>")[0]
    assert silences.count("<tr><td") >= 4  # of the thin day
    assert "100.0%" in page.partition("Unknown items")[2][:200]  # none is of the model's shop
    assert client.get("/admin/data-quality/report.json").get_json()["newest"]["unknown"] == 1.0


def test_refreshing_again_replaces_the_report_and_old_ones_go(service):
    with service.database.begin() as connection:
        for ago in (KEPT_DAYS + 2, 3):
            quality_rows.put_report(connection, to_us(NOW) - ago * DAY_US, {"ago": ago})
    refresh(service)
    refresh(service)
    with service.database.connect() as connection:
        found = quality_rows.newest_report(connection)
        rows = connection.exec_driver_sql("SELECT count(*) FROM quality_reports").scalar_one()
    assert found.made_at_us == to_us(NOW) and rows == 2
    assert found.facts["champion"] and found.facts["newest"]["unknown"] is None


def test_a_damaged_champion_does_not_keep_the_report_back(service, tmp_path):
    post_days(service.database, {1: 20})
    next((tmp_path / "models").glob("*/vocabulary.json")).write_text("{}")
    said = []
    assert refresh(service, said.append) == 40
    assert "unknown items are not counted" in said[0]


def test_the_quarantine_is_summed_listed_filtered_and_paged(service, client):
    late = [f"timestamp '{at}x': expected RFC 3339" for at in range(60)]
    reject(service.database, "clicks.csv", [*late, "item_id is missing"])
    reject(service.database, f"{MARKUP}.csv", [f"not JSON: {MARKUP}: 'x'"], raw=MARKUP)
    refresh(service)
    page = text(client.get("/admin/data-quality"))
    assert MARKUP not in page and "62" in page
    part = page.partition('id="quarantine"')[2]
    assert part.index("timestamp: expected RFC 3339") < part.index("item_id is missing")
    seen, address = [], "/admin/data-quality/quarantine?source=clicks.csv&q=RFC"
    while address:
        page = text(client.get(address))
        seen += re.findall(r"<summary>timestamp &#39;(\d+)x", page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        address = found and found.group(1).replace("&amp;", "&")
    assert seen == [str(at) for at in range(59, -1, -1)]
    page = text(client.get("/admin/data-quality/quarantine"))
    assert MARKUP not in page and "&lt;img src=x" in page and "events rejected --replay" in page
    with service.database.begin() as connection:
        ids = [row["id"] for row in rejected_rows.list_rejected(connection)]
        rejected_rows.mark_replayed(connection, ids, to_us(NOW))
    assert "The quarantine is empty" in text(client.get("/admin/data-quality/quarantine"))
    assert text(client.get("/admin/data-quality/quarantine?state=replayed")).count("replayed<") > 20
    assert "No matches" in text(client.get("/admin/data-quality/quarantine?q=%25_"))
    assert f"{LOOKED_AT:,}" in text(client.get("/admin/data-quality/quarantine?q=%25_"))


@pytest.mark.parametrize(
    "query",
    ["?range=<b>", "?from=2025-01-01&to=<b>", "/quarantine?cursor=x", "/quarantine?state=<b>",
     f"/quarantine?cursor={write_cursor('1;DROP')}", "/quarantine?q=" + "x" * 5_000,
     "/quarantine?source=" + "x" * 5_000],
)  # fmt: skip
def test_bad_queries_are_refused(client, query):
    answer = client.get(f"/admin/data-quality{query}")
    assert answer.status_code == 422 and len(answer.data) < 20_000


def test_posted_events_are_counted_by_what_became_of_them(service, client):
    event = {"user_id": "u1", "item_id": "i1", "event_id": "e1"}
    service.post("/events", [event, event, {"item_id": "i1"}])
    service.app.extensions["recsys"].activity.flush()
    page = text(client.get("/admin/data-quality?range=24h"))
    chart = page.partition('data-chart="posted"')[2].partition("</figure>")[0]
    assert "3 events posted." in chart
    assert all(f'"label":"{name}"' in chart for name in ("accepted", "duplicate", "rejected"))


def test_streams_are_shown_with_what_keeps_them_from_being_read(client, service):
    assert "recsys consume" not in text(client.get("/admin/data-quality"))
    two = [Partition(MARKUP, number) for number in range(2)]
    with service.database.begin() as connection:
        stream_rows.add_partitions(connection, "kafka://a:1", two)
        stream_rows.join(connection, "kafka://a:1", "here:1:x", [MARKUP], to_us(NOW))
        first, _ = stream_rows.list_partitions(connection)
        first = stream_rows.claim(connection, first, "here:1:x")
        stream_rows.advance(connection, [Move(first, "912", {"accepted": 70})], to_us(NOW))
        stream_rows.report(connection, [first], {first.key: 41}, {}, to_us(NOW))
    page = text(client.get("/admin/data-quality"))
    assert MARKUP not in page
    assert re.search(r'data-label="Offset"[^>]*>912<', page)
    assert re.search(r'data-label="Lag"[^>]*>41<', page)
    assert "here:1:x" in page
    assert "no consumer reads it" in page  # the second
    with service.database.begin() as connection:
        stream_rows.beat(connection, "kafka://a:1", "here:1:x", to_us(NOW), "the broker is away")
    assert "the broker is away" in text(client.get("/admin/data-quality"))
