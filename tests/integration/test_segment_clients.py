"""The clients of Segment and RudderStack, unchanged, against a served installation."""

import json
import os
import shutil
import subprocess
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import rudderstack.analytics.client as rudderstack
import segment.analytics.client as segment
from sqlalchemy import select
from werkzeug.serving import make_server

from recsys.events.times import to_us
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows, rejected_rows, unmapped_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import aliases, events, impressions
from recsys.web.app import create_app
from tests.conftest import unavailable

NODE = Path(__file__).parents[1] / "node"
LONG_AGO = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
SOLD = [{"product_id": "tea", "price": 2.5, "quantity": 2}, {"sku": "cup"}]

# Sessions of the clients' own are closed when they like.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Shop:
    """A served installation, and a page of another origin."""

    def __init__(self, base: str, page: str, database: Database) -> None:
        self.base, self.page, self.database = base, page, database
        with database.begin() as connection:
            self.key = key_rows.create_key(connection, "server", ["write"], 1)
            self.page_key = key_rows.create_key(connection, "page", ["collect"], 1, [page])

    def stored(self):
        """(user, session, item, type, value) of each event, in order of arrival; their times by id."""
        c = events.c
        columns = (c.user_id, c.session_id, c.item_id, c.event_type, c.value)
        with self.database.connect() as connection:
            rows = connection.execute(select(*columns).order_by(c.id)).all()
            times = dict(connection.execute(select(c.event_id, c.timestamp_us)).all())
            assert rejected_rows.list_rejected(connection) == []
            left_out = {one.name: one.number for one in unmapped_rows.list_names(connection)}
            merged = dict(connection.execute(select(aliases.c.alias_key, aliases.c.user_id)).all())
        return [tuple(row) for row in rows], times, left_out, merged


class Page(BaseHTTPRequestHandler):
    """Serves the files of `files`."""

    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self):
        body = self.files.get(self.path)
        self.send_response(404 if body is None else 200)
        kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *given):
        pass


@pytest.fixture(params=[{}])
def shop(request, tmp_path, settings_for):
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    settings = settings_for(tmp_path / "models", {"collect_per_minute": 10_000})
    chosen = type(settings.segment).model_validate(request.param)
    app = create_app(settings.model_copy(update={"segment": chosen}), database)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    pages = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    for one in (server, pages):
        threading.Thread(target=one.serve_forever, daemon=True).start()
    ports = (server.server_port, pages.server_port)
    with closing(database), closing(app.extensions["recsys"]):
        yield Shop(*(f"http://127.0.0.1:{port}" for port in ports), database)
        for one in (server, pages):
            one.shutdown()
            one.server_close()


def use(client):
    """What a shop's server tells, through a client in Python."""
    who = {"user_id": "u1", "anonymous_id": "a1"}
    client.identify(**who, traits={"plan": "gold"})
    client.track(**who, event="Product Viewed", properties={"product_id": "tea", "name": "Tea"})
    client.track("u1", "Product Added", {"sku": 7}, message_id="mine", timestamp=LONG_AGO)
    client.track("u1", "Order Completed", {"order_id": "o1", "products": SOLD})
    client.track("u1", "Signed Up", {})
    client.page("u1", "Shop", "Home", {})
    client.screen("u1", "Shop", "Home", {})
    client.group("u1", "g1", {})
    client.alias("u0", "u1")
    listed = {"list_id": "home", "products": SOLD}
    client.track("u1", "Product List Viewed", listed)


TOLD = [
    ("u1", "a1", "tea", "view", None),
    ("u1", None, "7", "cart", None),
    ("u1", None, "tea", "purchase", 5.0),
    ("u1", None, "cup", "purchase", None),
]
LEFT_OUT = {"Signed Up": 1, "page": 1, "screen": 1, "group": 1}
MERGED = {"s:a1": "u1", "s:u0": "u1", "u:u0": "u1"}


def check(shop, told=TOLD):
    found, times, left_out, merged = shop.stored()
    assert (found, left_out, merged) == (told, LEFT_OUT, MERGED)
    # History that the caller sets is moved by the clocks' difference, which is none here, and the way.
    assert 0 <= times["mine"] - to_us(LONG_AGO) < 60_000_000
    assert all(abs(at - to_us(datetime.now(UTC))) < 60_000_000 for at in times.values() if at != times["mine"])  # fmt: skip
    with shop.database.connect() as connection:
        assert connection.execute(select(impressions.c.scenario)).scalars().all() == ["home"]


@pytest.mark.parametrize("packed", [False, True])
def test_segments_python_client(shop, packed):
    client = segment.Client(shop.key, host=shop.base, sync_mode=True, gzip=packed)
    use(client)
    check(shop)
    with pytest.raises(Exception, match="not known or was revoked"):
        segment.Client("rk_no", host=shop.base, sync_mode=True, max_retries=0).track("u", "x")


def test_segments_python_client_in_batches(shop):
    wrong = []
    client = segment.Client(shop.key, host=shop.base, on_error=lambda *given: wrong.append(given))
    use(client)
    client.shutdown()
    assert wrong == []
    check(shop)


@pytest.mark.parametrize("packed", [False, True])
def test_rudderstacks_python_client(shop, packed):
    client = rudderstack.Client(shop.key, host=shop.base, sync_mode=True, gzip=packed)
    use(client)
    check(shop)


@pytest.fixture(scope="module")
def node():
    found = shutil.which("node")
    if found is None or not (NODE / "node_modules").is_dir():
        unavailable("no node, or no packages in tests/node: npm ci")
    return found


def test_segments_node_client(shop, node):
    script = f"""
    import {{ Analytics }} from "@segment/analytics-node";
    const client = new Analytics({{ writeKey: "{shop.key}", host: "{shop.base}" }});
    const wrong = [];
    client.on("error", (error) => wrong.push(String(error.reason ?? error)));
    const who = {{ userId: "u1", anonymousId: "a1" }};
    const sold = {json.dumps(SOLD)};
    client.identify({{ ...who, traits: {{ plan: "gold" }} }});
    client.track({{ ...who, event: "Product Viewed", properties: {{ product_id: "tea" }} }});
    client.track({{ userId: "u1", event: "Product Added", properties: {{ sku: 7 }},
                   messageId: "mine", timestamp: new Date({to_us(LONG_AGO) // 1000}) }});
    client.track({{ userId: "u1", event: "Order Completed", properties: {{ products: sold }} }});
    client.track({{ userId: "u1", event: "Signed Up" }});
    client.page({{ userId: "u1", name: "Home" }});
    client.screen({{ userId: "u1", name: "Home" }});
    client.group({{ userId: "u1", groupId: "g1" }});
    client.alias({{ userId: "u1", previousId: "u0" }});
    client.track({{ userId: "u1", event: "Product List Viewed",
                   properties: {{ list_id: "home", products: sold }} }});
    await client.closeAndFlush();
    console.log(JSON.stringify(wrong));
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=NODE, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == []
    check(shop)


@pytest.fixture(scope="module")
def bundle(node, tmp_path_factory):
    """analytics.js 2, as a page loads it."""
    folder = tmp_path_factory.mktemp("bundle")
    entry = folder / "entry.js"
    entry.write_text(
        'import { AnalyticsBrowser } from "@segment/analytics-next";\n'
        "window.AnalyticsBrowser = AnalyticsBrowser;\n"
    )
    command = [NODE / "node_modules/.bin/esbuild", entry, "--bundle", "--define:global=window"]
    environment = {**os.environ, "NODE_PATH": str(NODE / "node_modules")}
    done = subprocess.run(
        [*command, f"--outfile={folder}/bundle.js", "--log-level=error"],
        env=environment, timeout=120, check=True, capture_output=True,
    )  # fmt: skip
    assert done.stderr == b""
    return (folder / "bundle.js").read_bytes()


HTML = """<!doctype html><meta charset="utf-8"><title>Shop</title><script src="/bundle.js"></script>
<script>
const integrations = {"Segment.io": {apiKey: KEY, apiHost: HOST, protocol: "http", STRATEGY}};
window.client = AnalyticsBrowser.load({writeKey: KEY, cdnSettings: {integrations}});
window.done = (async () => {
  await client.page("Home");
  await client.identify("u1", {plan: "gold"});
  await client.track("Product Viewed", {product_id: "tea", name: "Spam"});
  await client.track("Order Completed", {order_id: "o1", products: SOLD});
  await client.track("Signed Up");
  return (await client.user()).anonymousId();
})();
</script>"""
SINGLY = "maxEventsInBatch: 1"
TOGETHER = 'deliveryStrategy: {strategy: "batching", config: {size: 5, timeout: 300}}'


@pytest.mark.parametrize(
    ("shop", "strategy"),
    [({}, SINGLY), ({"page_identify": True}, TOGETHER)],
    indirect=["shop"],
    ids=["singly", "together"],
)
def test_analytics_js_in_chromium(shop, strategy, bundle, browser):
    values = {
        "STRATEGY": strategy,
        "KEY": json.dumps(shop.page_key),
        "HOST": json.dumps(f"{shop.base.removeprefix('http://')}/v1"),
        "SOLD": json.dumps(SOLD),
    }
    html = HTML
    for name, value in values.items():
        html = html.replace(name, value)
    Page.files = {"/": html.encode(), "/bundle.js": bundle}
    page = browser.new_page()
    wrong, asked = [], set()
    page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: asked.add(one.url))
    page.goto(f"{shop.page}/")
    session = page.evaluate("() => window.done")
    ends = datetime.now(UTC) + timedelta(seconds=15)
    expected = {"page": 1, "Signed Up": 1} | ({} if strategy == TOGETHER else {"identify": 1})
    while shop.stored()[2] != expected or len(shop.stored()[0]) < 3:
        assert datetime.now(UTC) < ends, (shop.stored(), wrong, asked)
        page.wait_for_timeout(50)
    page.close()
    found, _, _, merged = shop.stored()
    assert set(found) == {
        (None, session, "tea", "view", None),
        (None, session, "tea", "purchase", 5.0),
        (None, session, "cup", "purchase", None),
    }
    assert merged == ({f"s:{session}": "u1"} if strategy == TOGETHER else {})
    assert [text for text in wrong if "favicon" not in text and "404" not in text] == []
    paths = {url.removeprefix(shop.base) for url in asked if url.startswith(shop.base)}
    assert paths <= {"/v1/p", "/v1/i", "/v1/t", "/v1/b", "/v1/m"} and paths
    outside = [url for url in asked if not url.startswith((shop.base, shop.page))]
    assert outside == []
