"""The WSGI application behind ASGI: bodies, bounds and what the environment says."""

import asyncio
import threading
import time

import orjson
import pytest

from recsys.web.asgi_bridge import PART_BYTES, AsgiBridge, Bounds
from recsys.web.asgi_messages import environ_of


def scope_of(path=b"/", headers=(), method="POST", query=b""):
    return {
        "type": "http",
        "method": method,
        "raw_path": path,
        "path": path.decode("latin-1"),
        "query_string": query,
        "http_version": "1.1",
        "scheme": "http",
        "client": ("10.0.0.7", 4321),
        "server": ("127.0.0.1", 8000),
        "headers": list(headers),
    }


class Client:
    """One request whose body arrives as `put` has it; `answer` once it is answered."""

    def __init__(self, bridge, scope):
        self.messages = asyncio.Queue()
        self.sent = []
        self.task = asyncio.create_task(bridge(scope, self.messages.get, self._send))

    async def _send(self, message):
        self.sent.append(message)

    def put(self, body, more=True):
        self.messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self):
        self.messages.put_nowait({"type": "http.disconnect"})

    async def answer(self):
        await asyncio.wait_for(self.task, 5)
        start, body = self.sent
        return start["status"], dict(start["headers"]), body["body"]


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Length", str(len(body)))])
    return [body]


def length(number):
    return [(b"content-length", str(number).encode())]


CHUNKED = [(b"transfer-encoding", b"chunked")]


def test_an_application_sees_the_whole_body_and_its_answer_is_passed_on():
    async def run():
        client = Client(AsgiBridge(echo, 1, Bounds(100)), scope_of(headers=length(6)))
        client.put(b"abc")
        client.put(b"def", more=False)
        return await client.answer()

    status, headers, body = asyncio.run(run())
    assert (status, body) == (200, b"abcdef")
    assert headers == {b"content-type": b"text/plain", b"x-length": b"6"}


def test_bodies_on_their_way_take_no_thread():
    async def run():
        bridge = AsgiBridge(echo, 1, Bounds(100))
        slow = [Client(bridge, scope_of(headers=length(2))) for _ in range(50)]
        for client in slow:
            client.put(b"a")
        quick = Client(bridge, scope_of(method="GET"))
        first = (await quick.answer())[0]
        for client in slow:
            client.put(b"b", more=False)
        return first, {(await client.answer())[::2] for client in slow}

    assert asyncio.run(run()) == (200, {(200, b"ab")})


def test_the_slowest_bodies_are_shed_once_all_take_too_much():
    async def run():
        bridge = AsgiBridge(echo, 1, Bounds(100, held_bytes=100))
        clients = [Client(bridge, scope_of(headers=length(50))) for _ in range(4)]
        for client in clients:
            client.put(b"x" * 40)
            await asyncio.sleep(0.01)
        shed = [await client.answer() for client in clients[:2]]
        for client in clients[2:]:
            client.put(b"x" * 10, more=False)
        return shed, [await client.answer() for client in clients[2:]], bridge

    shed, answered, bridge = asyncio.run(run())
    assert [status for status, _, _ in answered] == [200, 200]
    for status, headers, body in shed:
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert headers[b"content-type"] == b"application/problem+json"
        problem = orjson.loads(body)
        assert set(problem) == {"type", "title", "status", "detail", "errors", "request_id"}
    assert (bridge._held_bytes, bridge._arriving, bridge.unanswered) == (0, {}, 0)


def test_a_body_that_takes_too_long_or_breaks_off_is_refused():
    async def run():
        bridge = AsgiBridge(echo, 1, Bounds(100, body_seconds=0.05))
        slow = Client(bridge, scope_of(headers=length(2)))
        gone = Client(bridge, scope_of(headers=CHUNKED))
        gone.leave()
        return (await slow.answer())[0], (await gone.answer())[0]

    assert asyncio.run(run()) == (408, 400)


@pytest.mark.parametrize("headers", [length(10**9), CHUNKED])
def test_of_a_body_that_is_too_long_no_more_is_read_and_its_length_is_told(headers):
    told = []

    def app(environ, start_response):
        told.append(int(environ["CONTENT_LENGTH"]))
        start_response("413 CONTENT TOO LARGE", [])
        return []

    async def run():
        client = Client(AsgiBridge(app, 1, Bounds(100)), scope_of(headers=headers))
        client.put(b"x" * 60)
        client.put(b"x" * 60)
        return (await client.answer())[0]

    assert asyncio.run(run()) == 413
    assert told[0] > 100


def test_more_requests_than_may_wait_are_told_to_come_again():
    release = threading.Event()

    def app(environ, start_response):
        release.wait(5)
        start_response("200 OK", [])
        return []

    async def run():
        bridge = AsgiBridge(app, 1, Bounds(100, in_hand=2))
        clients = [Client(bridge, scope_of(method="GET")) for _ in range(3)]
        refused = await clients[2].answer()
        release.set()
        return refused, [(await client.answer())[0] for client in clients[:2]]

    (status, headers, _), answered = asyncio.run(run())
    assert (status, headers[b"retry-after"], answered) == (503, b"1", [200, 200])


def test_an_application_that_fails_tells_nothing(capsys):
    closed = []

    class Parts:
        def __iter__(self):
            raise RuntimeError("/secret/path")

        def close(self):
            closed.append(True)

    async def run():
        bridge = AsgiBridge(lambda environ, start_response: Parts(), 1, Bounds(100))
        return await Client(bridge, scope_of(method="GET")).answer()

    status, _, body = asyncio.run(run())
    assert (status, closed) == (500, [True])
    assert b"secret" not in body and b"Traceback" not in body


def test_threads_are_as_many_as_asked():
    most, now, lock = [0], [0], threading.Lock()

    def app(environ, start_response):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        start_response("200 OK", [])
        return []

    async def run():
        bridge = AsgiBridge(app, 3, Bounds(100))
        clients = [Client(bridge, scope_of(method="GET")) for _ in range(20)]
        return {(await client.answer())[0] for client in clients}

    assert asyncio.run(run()) == {200}
    assert most[0] == 3


def test_the_environment_is_what_wsgi_asks_for():
    headers = [
        (b"host", b"shop.example"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x_forwarded_for", b"6.6.6.6"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    ]
    environ = environ_of(scope_of(b"/a%2Fb/%C3%BC", headers, query=b"k=%20"), b"{}")
    assert environ["PATH_INFO"].encode("latin-1") == "/a/b/ü".encode()
    assert environ["RAW_URI"] == "/a%2Fb/%C3%BC?k=%20"
    assert environ["QUERY_STRING"] == "k=%20"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("application/json", "2")
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"  # the one with underscores is no proxy's
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["REMOTE_ADDR"] == "10.0.0.7"
    assert environ["wsgi.input"].read() == b"{}"


@pytest.mark.parametrize("threads", [1, 2])
def test_requests_that_take_long_hold_no_thread_of_the_others(threads):
    begun, goes_on = threading.Semaphore(0), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow" and environ["REQUEST_METHOD"] == "POST":
            begun.release()
            assert goes_on.wait(20)
        return echo(environ, start_response)

    async def run():
        bridge = AsgiBridge(app, threads, Bounds(100), ("/slow",))
        slow = [Client(bridge, scope_of(path)) for path in (b"/slow", b"/s%6Cow") * 5]
        await asyncio.to_thread(begun.acquire)
        refused = [await client.answer() for client in slow[2:]]
        quick = [
            await Client(bridge, scope_of(path, method=method)).answer()
            for path, method in ((b"/quick", "POST"), (b"/slow", "GET")) * 3
        ]
        goes_on.set()
        answered = [await client.answer() for client in slow[:2]]
        return refused, [status for status, *_ in quick + answered]

    refused, answered = asyncio.run(run())
    assert [status for status, *_ in refused] == [503] * 8
    assert all(headers[b"retry-after"] == b"1" for _, headers, _ in refused)
    assert answered == [200] * 8


@pytest.mark.parametrize("threads", [1, 4])
def test_heavy_requests_leave_the_others_their_threads(threads):
    goes_on = threading.Event()

    def app(environ, start_response):
        if environ["QUERY_STRING"]:
            assert goes_on.wait(20)
        return echo(environ, start_response)

    def is_heavy(scope, body):
        return scope["query_string"] != b""

    async def run():
        bridge = AsgiBridge(app, threads, Bounds(100), is_heavy=is_heavy)
        heavy = [Client(bridge, scope_of(b"/", method="GET", query=b"k=900")) for _ in range(12)]
        quick = [await Client(bridge, scope_of(b"/", method="GET")).answer() for _ in range(3)]
        goes_on.set()
        return [status for status, *_ in quick + [await one.answer() for one in heavy]]

    assert asyncio.run(run()) == [200] * 15


class Reader:
    """A request for a large answer, of which `parts` parts are taken."""

    def __init__(self, bridge, parts):
        self.starts, self.taken, self._parts = 0, [], parts
        self.task = asyncio.create_task(
            bridge(scope_of(method="GET"), asyncio.Queue().get, self._send)
        )

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.starts += 1
            return
        if len(self.taken) == self._parts:
            await asyncio.Event().wait()
        self.taken.append((message["body"], message["more_body"]))


LARGE = bytes(range(256)) * (PART_BYTES // 100)  # three parts, the last one smaller


def large(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(LARGE)))])
    return [LARGE]


def test_a_large_answer_goes_in_parts_and_whole():
    async def run():
        reader = Reader(AsgiBridge(large, 1, Bounds(100)), 99)
        await asyncio.wait_for(reader.task, 5)
        return reader

    reader = asyncio.run(run())
    assert reader.starts == 1 and b"".join(part for part, _ in reader.taken) == LARGE
    assert [more for _, more in reader.taken] == [True, True, False]


def test_an_answer_that_its_client_does_not_take_is_cut_off():
    async def run():
        bridge = AsgiBridge(large, 1, Bounds(100, part_seconds=0.05))
        readers = [Reader(bridge, parts) for parts in (1, 0, 99)]
        for reader in readers:
            await asyncio.wait_for(reader.task, 5)
        return readers, bridge.unanswered

    readers, unanswered = asyncio.run(run())
    assert ([len(reader.taken) for reader in readers], unanswered) == ([1, 0, 3], 0)


def test_the_slowest_answers_are_cut_off_once_all_take_too_much():
    async def run():
        bridge = AsgiBridge(large, 1, Bounds(100, unsent_bytes=2 * len(LARGE)))
        readers = [Reader(bridge, parts) for parts in (1, 1, 1, 99)]
        for at in (0, 1, 3):
            await asyncio.wait_for(readers[at].task, 5)
        third = readers[2].task.done()
        readers[2].task.cancel()
        return third, [len(reader.taken) for reader in readers]

    assert asyncio.run(run()) == (False, [1, 1, 1, 3])


def streamed(environ, start_response):
    """An answer of 1 MiB parts, one after the other; `made` counts them."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(8):
        streamed.made += 1
        yield b"x" * 2**20


def test_an_export_is_made_as_its_client_takes_it():
    async def run():
        streamed.made = 0
        bridge = AsgiBridge(streamed, 1, Bounds(100), stream_paths=("/export",))
        client = Client(bridge, scope_of(b"/export"))
        gate = asyncio.Event()

        async def slowly(message):
            client.sent.append(message)
            if len(client.sent) == 4:
                await gate.wait()

        client.task.cancel()
        task = asyncio.create_task(bridge(scope_of(b"/export"), client.messages.get, slowly))
        while len(client.sent) < 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert streamed.made == 1  # the next one waits for the client
        gate.set()
        await asyncio.wait_for(task, 5)
        assert not client.sent[-1]["more_body"]
        return sum(len(one.get("body", b"")) for one in client.sent)

    assert asyncio.run(run()) == 8 * 2**20


def test_exports_beyond_the_bound_are_told_to_wait_and_one_that_fails_is_cut_off():
    def failing(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        raise OSError("the disk is gone")

    async def run():
        bridge = AsgiBridge(failing, 1, Bounds(100, streams=0), stream_paths=("/export",))
        assert (await Client(bridge, scope_of(b"/export")).answer())[0] == 503
        bridge = AsgiBridge(failing, 1, Bounds(100), stream_paths=("/export",))
        client = Client(bridge, scope_of(b"/export"))
        with pytest.raises(OSError, match="disk"):
            await asyncio.wait_for(client.task, 5)
        assert client.sent[-1]["more_body"]  # no end that would look like the whole
        assert bridge.unanswered == 0

    asyncio.run(run())
