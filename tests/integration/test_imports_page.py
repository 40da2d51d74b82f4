"""Files through the dashboard: sent in parts, previewed, checked and imported as the command line does."""

import gzip
import io
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.runs import run_in_this_process
from recsys import pipeline
from recsys.commands import imports
from recsys.config import Settings
from recsys.events.times import DAY_US, to_us
from recsys.ingest import uploads
from recsys.ingest.event_files import ReadOptions
from recsys.ingest.reading_form import read_options
from recsys.ingest.uploads import open_uploads
from recsys.storage.entities import audit_rows, import_rows, job_rows
from recsys.storage.schema.tables import events
from recsys.web.app import create_app
from tests.integration.test_admin_access import field, log_in

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)
PAGE = "/admin/data-quality/uploads"


def rows(count, users=7, items=5):
    """Clicks: (user, item, moment)."""
    return [
        (f"u{at % users}", f"i{at * 7 % items}", BEGIN + timedelta(minutes=at))
        for at in range(count)
    ]


def csv_of(found, header="uid,sku,when"):
    lines = [f"{user},{item},{int(moment.timestamp() * 1000)}" for user, item, moment in found]
    return "\n".join([header, *lines, ""]).encode()


def json_lines_of(found):
    lines = [
        json.dumps({"userId": user, "productId": item, "ts": moment.isoformat()})
        for user, item, moment in found
    ]
    return "\n".join(lines).encode()


def parquet_of(found):
    users, items, moments = zip(*found, strict=True)
    sink = io.BytesIO()
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": moments}), sink)
    return sink.getvalue()


FILES = {
    "clicks.csv": lambda found: csv_of(found, "user,sku,ts"),
    "clicks.csv.gz": lambda found: gzip.compress(csv_of(found, "visitor,itemid,time")),
    "clicks.jsonl": json_lines_of,
    "clicks.parquet": parquet_of,
}


class Importer:
    """A service with an account of each role, and what a page does with a file."""

    def __init__(self, service, settings, client, token):
        self.service, self.settings, self.client, self.token = service, settings, client, token

    def post(self, path, data=None, status=303, **more):
        headers = {"X-CSRF-Token": self.token, **more.pop("headers", {})}
        answer = self.client.post(path, data=data, headers=headers, **more)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer

    def begin(self, name, size, status=200):
        accept = {"Accept": "application/json"}
        form = {"name": name, "size": size}
        return self.post(PAGE, form, status, headers=accept).get_json()

    def send(self, name, content):
        """Upload a file; the address of its page."""
        began = self.begin(name, len(content))
        at = 0
        while at < len(content):
            part = content[at : at + began["part_bytes"]]
            answer = self.post(
                f"{began['parts']}?offset={at}",
                part,
                200,
                headers={"Content-Type": "application/octet-stream"},
            )
            at = answer.get_json()["received"]
        return began["page"]

    def page(self, path):
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_data(as_text=True)

    def reading(self, path):
        return dict(open_uploads(self.settings).get(path.rpartition("/")[2]).reading)

    def run(self, job):
        """Do the run of `job` that waits, as the scheduler's child does."""
        with self.service.database.connect() as connection:
            run = job_rows.list_runs(connection, 1, job=job, state="requested")[0]
        run_in_this_process(self.settings, run.id)
        with self.service.database.connect() as connection:
            return job_rows.get_run(connection, run.id)

    def check(self, path, **changes):
        form = {**self.reading(path), **changes, "then": "check"}
        self.post(f"{path}/columns", form)
        return self.run("check")

    def import_(self, path):
        self.post(f"{path}/import")
        return self.run("import")


@pytest.fixture
def settings(tmp_path, database):
    url = database.url.render_as_string(hide_password=False)
    return Settings(
        database={"url": url},
        registry={"path": tmp_path / "models"},
        events={"upload_path": tmp_path / "uploads", "upload_mib": 1},
        serving={"max_body_bytes": 4_096, "reload_seconds": 0.1},
    )


@pytest.fixture
def importer(Service, database, settings, add_account):
    service = Service(database, settings)
    with database.begin() as connection:
        for role in ("viewer", "operator", "admin"):
            add_account(connection, role, role)
    client, _ = log_in(service, "operator")
    yield Importer(service, settings, client, field(client.get("/admin/account")))
    service.close()


def stored(database):
    columns = (events.c.user_id, events.c.item_id, events.c.event_type, events.c.timestamp_us)
    with database.connect() as connection:
        found = connection.execute(events.select().with_only_columns(*columns)).all()
    return sorted(map(tuple, found))


def test_a_file_of_each_format_becomes_events_as_by_the_command_line(importer, tmp_path):
    for place, name in enumerate(FILES):
        take_the_way(importer, tmp_path, name, rows(300, users=7 + place))


def take_the_way(importer, tmp_path, name, found):
    """Upload, check, import, and compare each with what the command line makes of the file."""
    content = FILES[name](found)
    before = stored(importer.service.database)
    path = importer.send(name, content)
    page = importer.page(path)
    assert "First events" in page and page.count('data-label="Item"') == 10
    assert "200 of the first 200 rows are events" in page
    run = importer.check(path)
    assert (run.state, run.outcome["rows_kept"]) == ("succeeded", 300), run.error
    page = importer.page(path)
    (tmp_path / name).write_bytes(content)
    options = read_options(importer.reading(path))
    report = pipeline.check_events(
        importer.settings, importer.service.database, datetime.now(UTC), tmp_path / name, options
    )
    assert run.outcome["verdict"] == report["signal"]["verdict"]
    assert run.outcome["verdict"][1:] in page and "Import 300 events" in page
    outcome = importer.import_(path).outcome
    wanted = [(user, item, "view", to_us(moment)) for user, item, moment in found]
    known = set(wanted) & set(before)
    counts = {key: outcome[key] for key in ("read", "accepted", "duplicates", "rejected")}
    assert counts == {
        "read": 300,
        "accepted": 300 - len(known),
        "duplicates": len(known),
        "rejected": 0,
    }
    assert outcome["left_out"] == 0
    assert importer.client.get(path).headers["Location"].endswith(f"/{outcome['import_id']}")
    assert not any((tmp_path / "uploads").glob("*/data/*"))
    assert stored(importer.service.database) == sorted({*wanted, *before})
    again = pipeline.import_events(
        importer.service.database, tmp_path / name, options, datetime.now(UTC)
    )
    assert (again.accepted, again.duplicates) == (0, 300)


def test_every_row_is_accounted_for_and_an_import_can_be_undone(importer):
    good = csv_of(rows(50), "user,item,timestamp")
    bad = b"u1,,1714521600000\nu1,i1,never\n" + good.splitlines()[1] + b"\n"
    path = importer.send("mixed.csv", good + bad)
    assert "item_id is missing" in importer.page(path)
    importer.check(path)
    page = importer.page(path)
    assert "Dropped rows" in page and "item_id is missing" in page
    outcome = importer.import_(path).outcome
    assert outcome["read"] == 53 and outcome["rejected"] == 2
    assert outcome["read"] == sum(
        outcome[name] for name in ("accepted", "duplicates", "rejected", "left_out")
    )
    import_id = outcome["import_id"]
    detail = f"/admin/data-quality/imports/{import_id}"
    page = importer.page(detail)
    assert "Read = accepted + duplicates + rejected + left out" in page
    assert "mixed.csv" in importer.page("/admin/data-quality/imports")
    importer.post(f"{detail}/undo")
    assert "is waiting" in importer.page(detail)
    importer.post(f"{detail}/undo", status=409)
    assert importer.run("undo").outcome["events"] == outcome["accepted"]
    assert stored(importer.service.database) == [] and "Undone" in importer.page(detail)
    importer.post(f"{detail}/undo", status=409)
    with importer.service.database.connect() as connection:
        lines = audit_rows.list_audit(connection, actor="operator")
        one = import_rows.get_import(connection, import_id)
    assert one.actor == "operator"
    found = [
        (line.action, line.subject) for line in lines if line.action.split(".")[0] != "session"
    ]
    assert found[:2] == [("import.undo", str(import_id)), ("events.import", "mixed.csv")]
    imported = next(line for line in lines if line.action == "events.import")
    assert imported.details["bytes"] == len(good + bad) and imported.role == "operator"


def test_columns_are_suggested_shown_and_can_be_changed(importer):
    path = importer.send("odd.csv", csv_of(rows(30), "who,what,moment"))
    page = importer.page(path)
    assert importer.reading(path) == {}
    assert "say which column is the item" in page and "Check the whole file" not in page
    chosen = {"user": "who", "item": "what", "timestamp": "moment"}
    importer.post(f"{path}/columns", {**chosen, "then": "preview"})
    page = importer.page(path)
    assert "Unit" in page and "expected s, ms, us or ns" in page
    importer.post(f"{path}/columns", {**chosen, "unit": "ms", "then": "preview"})
    page = importer.page(path)
    assert "30 of the first 30 rows are events" in page
    assert (
        "recsys events import odd.csv --map user=who,item=what,timestamp=moment --unit ms" in page
    )
    importer.check(path)
    assert "Import 30 events" in importer.page(path)
    importer.post(f"{path}/columns", {**chosen, "unit": "us", "then": "preview"})
    page = importer.page(path)  # what was checked is not what would be read now
    assert "Import 30 events" not in page
    importer.post(f"{path}/import", status=409)
    answer = importer.post(f"{path}/columns", {**chosen, "unit": "days"}, 303)
    assert "expected one of: s, ms, us, ns" in importer.page(answer.headers["Location"])
    content = b"visitorid,timestamp,event,itemid,transactionid\n7,1433221332117,view,355908,\n"
    path = importer.send("events.csv", content)
    assert importer.reading(path) == {"format": "retailrocket"}  # a public layout
    assert "355908" in importer.page(path)


UNREADABLE = (
    ("a.parquet", b"PAR1 but no more", "cannot be read"),
    ("a.csv.gz", b"not gzip at all, whatever it is called", "is not gzip data"),
    ("a.csv", b"PK\x03\x04 zipped", "is a zip archive"),
    ("a.csv", b"\n\n", "the file is empty"),
    ("<b>.csv", b"user,item,timestamp\n", "The file has no rows"),
)


def test_what_cannot_be_read_is_told_without_where_it_lies(importer, tmp_path):
    for name, content, words in UNREADABLE:
        page = importer.page(importer.send(name, content))
        assert words in page and str(tmp_path) not in page and "<b>.csv" not in page


def test_a_check_that_fails_names_the_file_as_its_owner_does(importer, tmp_path):
    content = gzip.compress(csv_of(rows(40), "user,item,timestamp"))
    path = importer.send("cut.csv.gz", content)
    form = {**importer.reading(path), "then": "check"}
    importer.post(f"{path}/columns", form)
    (damaged,) = (tmp_path / "uploads").glob("*/data/*")
    damaged.write_bytes(content[:20] + bytes(len(content) - 20))
    run = importer.run("check")
    assert run.state == "failed" and "cut.csv.gz" in run.error and str(tmp_path) not in run.error
    page = importer.page(path)
    assert "The check failed" in page and str(tmp_path) not in page
    damaged.write_bytes(content)
    assert "Check the whole file" in importer.page(path)
    assert importer.check(path).state == "succeeded"


def test_the_bounds_of_an_upload(importer, monkeypatch, tmp_path):
    problem = importer.begin("big.csv", 2**20 + 1, 422)
    assert "events.upload_mib" in problem["detail"]
    for name in ("", "../up.csv", "a/b.csv", ".hidden", "a\\b.csv", "x" * 300):
        importer.begin(name, 10, 422)
    for size in ("", "-1", "0", "1e3", "9" * 20):
        importer.begin("a.csv", size, 422)
    began = importer.begin("a.csv", 10)
    binary = {"Content-Type": "application/octet-stream"}
    importer.post(f"{began['parts']}?offset=5", b"xxxxx", 422, headers=binary)
    importer.post(f"{began['parts']}?offset=0", b"x" * 11, 422, headers=binary)
    importer.post(f"{began['parts']}?offset=0", b"", 422, headers=binary)
    importer.post(f"{began['parts']}?offset=0", b"x" * 5_000, 413, headers=binary)
    importer.post(f"{began['parts']}?offset=0", b"u" * 4, 200, headers=binary)
    assert importer.client.get(began["parts"]).get_json() == {"received": 4}
    assert "interrupted" in importer.page(began["page"])
    importer.post(f"{began['page']}/columns", {"then": "check"}, 409)
    second = importer.begin("b.csv", 10)  # one of an account at a time
    assert importer.client.get(began["page"]).status_code == 404
    monkeypatch.setattr(uploads, "room", lambda folder: 5)
    assert "no room" in importer.begin("c.csv", 10, 409)["detail"]
    importer.post(f"{second['parts']}?offset=0", b"u" * 6, 409, headers=binary)


def test_an_upload_is_its_accounts_and_gone_after_a_day(importer, settings):
    path = importer.send("mine.csv", csv_of(rows(3), "user,item,timestamp"))
    other, _ = log_in(importer.service, "admin")
    assert other.get(path).status_code == 404
    viewer, _ = log_in(importer.service, "viewer")
    assert viewer.get(path).status_code == 403
    page = viewer.get("/admin/data-quality/imports").get_data(as_text=True)
    assert "you need the role operator" in page and "data-upload" not in page
    assert "mine.csv" in importer.page("/admin/data-quality/imports")
    found = open_uploads(settings)
    now = to_us(datetime.now(UTC))
    assert found.sweep(now) == 0 and found.sweep(now + DAY_US + 10**9) == 1
    assert importer.client.get(path).status_code == 404


def test_a_file_with_a_run_stays_until_that_has_ended(importer):
    content = csv_of(rows(10), "user,item,timestamp")
    path = importer.send("a.csv", content)
    importer.post(f"{path}/columns", {**importer.reading(path), "then": "check"})
    page = importer.page(path)
    assert "waiting for the scheduler" in page and "No scheduler is running" in page
    importer.post(f"{path}/discard", status=409)
    importer.post(f"{path}/columns", {"then": "check"}, 409)
    importer.begin("b.csv", 10, 409)
    live = importer.client.get(f"{path}/live")
    assert live.status_code == 200 and "waiting for the scheduler" in live.get_data(as_text=True)
    importer.run("check")
    assert importer.client.get(f"{path}/live").headers["HX-Refresh"] == "true"
    importer.import_(path)
    assert "/imports/" in importer.client.get(f"{path}/live").headers["HX-Redirect"]
    importer.begin("b.csv", 10)  # what was imported makes way


def test_a_run_without_its_file_says_so(importer, settings):
    path = importer.send("a.csv", csv_of(rows(10), "user,item,timestamp"))
    importer.post(f"{path}/columns", {**importer.reading(path), "then": "check"})
    found = open_uploads(settings)
    found.delete(found.of_account("operator"))
    run = importer.run("check")
    assert run.state == "failed" and "events.upload_path" in run.error


def test_a_mapped_table_takes_no_files(importer, settings, tmp_path, database):
    events_of = {
        "table": "clicks", "user_column": "u", "item_column": "i", "timestamp_column": "t",
        "upload_path": tmp_path / "uploads",
    }  # fmt: skip
    mapped = Settings(
        database=settings.database, registry={"path": tmp_path / "models"}, events=events_of
    )
    app = create_app(mapped, database)
    try:
        importer.service.app = app
        client, _ = log_in(importer.service, "operator")
        page = client.get("/admin/data-quality/imports").get_data(as_text=True)
        assert "No file can be imported" in page and "data-upload" not in page
        token = field(client.get("/admin/account"))
        answer = client.post(
            PAGE,
            data={"name": "a.csv", "size": 9},
            headers={"X-CSRF-Token": token, "Accept": "application/json"},
        )
        assert answer.status_code == 409
        assert answer.get_json()["detail"] in page
    finally:
        app.extensions["recsys"].close()


def test_a_check_is_asked_for_only_of_a_whole_file(importer, settings):
    began = importer.begin("a.csv", 10)
    found = open_uploads(settings)
    one = found.get(began["page"].rpartition("/")[2])
    with pytest.raises(imports.ConflictError, match="not arrived whole"):
        imports.ask_check(importer.service.database, found, one, 1)
    assert ReadOptions() == read_options({})
