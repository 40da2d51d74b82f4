"""The WSGI application behind an ASGI server: a request gets a thread once its body is there.

The event loop waits for bodies, and for clients to take their answers, so a slow client holds memory that is
bounded, and no thread. Requests that take long by themselves have one thread of their own, so that however many come, none holds up the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from recsys.serving.long_work import LongWorkError
from recsys.web.asgi_messages import Answer, Message, environ_of, path_of, refusal
from recsys.web.loop_answers import Direct, LoopAnswers

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WAITING = "too many requests wait at this moment"
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

PART_BYTES = 256 * 1024  # of an answer that are sent at once; a larger one goes in parts
FRAMING = {b"content-length", b"transfer-encoding"}  # headers that announce a body


@dataclass(frozen=True)
class Bounds:
    """What the requests of one process may take."""

    body_bytes: int  # of one body; a longer one is left to the application to refuse
    body_seconds: float = 20.0  # from a head's end to that of its body
    held_bytes: int = 128 * 2**20  # of all bodies, those that arrive and those that are answered
    part_seconds: float = 30.0  # in which a client takes PART_BYTES of its answer
    unsent_bytes: int = 128 * 2**20  # of all large answers that are being sent
    in_hand: int = 1_000  # requests that have a thread or wait for one
    slow_in_hand: int = 2  # of those that take long
    streams: int = 2  # answers that are sent as they are made


@dataclass(eq=False)
class _Body:
    """A request body as far as it has arrived."""

    arriving: asyncio.Timeout
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes in `chunks`
    shed: bool = False


@dataclass(eq=False)
class _Unsent:
    """A large answer on its way."""

    leaving: asyncio.Timeout
    size: int  # bytes


@dataclass
class _Threads:
    """Threads, and the requests that have one or wait for one."""

    pool: ThreadPoolExecutor
    most: int
    in_hand: int = 0


class _RefusedError(Exception):
    """A request that does not reach the application."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.answer = refusal(status, detail)


class AsgiBridge:
    """Answers each request with `app` in one of `threads` threads; a POST to one of `slow_paths`, as the
    application sees them, in a thread for those alone. An answer to a POST to one of `stream_paths` is
    sent as it is made, by one thread for all of them, which no slow client holds.
    """

    def __init__(
        self,
        app: WsgiApp,
        threads: int,
        bounds: Bounds,
        slow_paths: Container[str] = (),
        direct: Direct = lambda scope, body: None,
        stream_paths: Container[str] = (),
        is_heavy: Callable[[Message, bytes], bool] = lambda scope, body: False,
    ) -> None:
        """`direct` answers what it can without the application. What `is_heavy` says takes many times as
        long as the rest has threads of its own, so that the others always have theirs.
        """
        self._app, self._bounds, self._slow_paths = app, bounds, slow_paths
        self._direct = LoopAnswers(direct, time.monotonic)
        self._quick = _Threads(ThreadPoolExecutor(threads, "request"), bounds.in_hand)
        self._is_heavy = is_heavy
        pool = ThreadPoolExecutor(heavy_threads(threads), "heavy request")
        self._heavy = _Threads(pool, bounds.in_hand)
        self._slow = _Threads(ThreadPoolExecutor(1, "slow request"), bounds.slow_in_hand)
        self._stream_paths = stream_paths
        self._streams = _Threads(ThreadPoolExecutor(1, "stream"), bounds.streams)
        self._held_bytes = 0
        self._arriving: dict[_Body, None] = {}  # the oldest first
        self._unsent: dict[_Unsent, None] = {}  # the oldest first
        self.unanswered = 0  # requests whose head has arrived

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.unanswered += 1
        try:
            if scope["method"] == "POST" and path_of(scope) in self._stream_paths:
                await self._stream(scope, receive, send)
                return
            answer = await self._answer(scope, receive)
            if len(answer.content) <= PART_BYTES:
                await send(_start(answer))
                await send({"type": "http.response.body", "body": answer.content})
            else:
                await self._send_in_parts(answer, send)
        finally:
            self.unanswered -= 1

    async def _stream(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer with what the application makes, a part once the client has taken the one before."""
        loop, ended = asyncio.get_running_loop(), object()
        if self._streams.in_hand >= self._streams.most:
            answer = refusal(503, "other exports are under way; try again when they are done")
        else:
            answer = await self._answer(scope, receive)
        if answer.parts is None:
            await send(_start(answer))
            await send({"type": "http.response.body", "body": answer.content})
            return
        self._streams.in_hand += 1
        try:
            await send(_start(answer))
            while True:
                part: Any = await loop.run_in_executor(
                    self._streams.pool, next, answer.parts, ended
                )
                if part is ended:
                    break
                for at in range(0, len(part), PART_BYTES):
                    chunk = part[at : at + PART_BYTES]
                    async with asyncio.timeout(self._bounds.part_seconds):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("an export was cut off, as its client does not take it")
            raise
        finally:
            self._streams.in_hand -= 1
            close = getattr(answer.parts, "close", lambda: None)
            await loop.run_in_executor(self._streams.pool, close)

    async def _send_in_parts(self, answer: Answer, send: Send) -> None:
        """Send a large answer as its client takes it; one that does not is cut off."""
        size = len(answer.content)
        one = _Unsent(asyncio.timeout(self._bounds.part_seconds), size)
        self._unsent[one] = None
        try:
            async with one.leaving:
                self._cut_slowest()
                await send(_start(answer))
                for at in range(0, size, PART_BYTES):
                    part = answer.content[at : at + PART_BYTES]
                    more = at + PART_BYTES < size
                    await send({"type": "http.response.body", "body": part, "more_body": more})
                    now = asyncio.get_running_loop().time()
                    one.leaving.reschedule(now + self._bounds.part_seconds)
        except TimeoutError:
            log.info("an answer was cut off, as its client does not take it", bytes=size)
        finally:
            self._unsent.pop(one, None)

    def _cut_slowest(self) -> None:
        """Cut off the answers that have been on their way for longest while all take too much memory."""
        while (
            len(self._unsent) > 1 and sum(x.size for x in self._unsent) > self._bounds.unsent_bytes
        ):
            slowest = next(iter(self._unsent))
            del self._unsent[slowest]
            slowest.leaving.reschedule(0.0)  # now

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        body = _Body(asyncio.timeout(self._bounds.body_seconds))
        try:
            framing = {name for name, _ in scope["headers"]} & FRAMING
            if framing == FRAMING:  # as a smuggled request has it (RFC 9112, section 6.1)
                raise _RefusedError(400, "a body has a length or chunks, not both")
            if framing:
                await self._read(scope["headers"], body, receive)
            return await self._answer_arrived(scope, b"".join(body.chunks))
        except _RefusedError as error:
            return error.answer
        finally:
            self._held_bytes -= body.size

    async def _read(
        self, headers: list[tuple[bytes, bytes]], body: _Body, receive: Receive
    ) -> None:
        """Read `body` to its end, or until it is longer than it may be. Raises _RefusedError."""
        if int(dict(headers).get(b"content-length", b"0")) > self._bounds.body_bytes:
            return
        self._arriving[body] = None
        try:
            async with body.arriving:
                while body.size <= self._bounds.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _RefusedError(400, "the body ended early or is not well formed")
                    chunk = message.get("body", b"")
                    body.chunks.append(chunk)
                    body.size += len(chunk)
                    self._held_bytes += len(chunk)
                    self._shed_slowest()
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            if not body.shed:
                raise _RefusedError(408, "the body took too long to arrive") from None
        finally:
            self._arriving.pop(body, None)
        if body.shed:
            raise _RefusedError(503, "too many bodies arrive at this moment")

    def _shed_slowest(self) -> None:
        """Give up the bodies that have been arriving for longest while all take too much memory."""
        while self._held_bytes > self._bounds.held_bytes and self._arriving:
            slowest = next(iter(self._arriving))
            del self._arriving[slowest]
            self._held_bytes -= slowest.size
            slowest.size, slowest.shed = 0, True
            slowest.chunks.clear()
            slowest.arriving.reschedule(0.0)  # now

    async def _answer_arrived(self, scope: Message, body: bytes) -> Answer:
        """On the event loop where that is quick, else in a thread."""
        path = path_of(scope) if scope["method"] == "POST" else ""
        threads, ask = self._quick, self._ask_directly
        if path in self._slow_paths:
            threads = self._slow
        elif self._is_heavy(scope, body):
            threads = self._heavy
        elif self._direct.quick:
            if self._direct.overrun():
                raise _RefusedError(503, WAITING)
            with suppress(LongWorkError):
                answer = self._caught(self._direct.on_loop, scope, body)
                if answer is not None:
                    return answer
                ask = self._through_wsgi
        if threads.in_hand >= threads.most:
            raise _RefusedError(503, WAITING)
        threads.in_hand += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(threads.pool, ask, scope, body)
        finally:
            threads.in_hand -= 1

    def _ask_directly(self, scope: Message, body: bytes) -> Answer:
        """The response to a request."""
        direct = self._caught(self._direct.timed, scope, body)
        return direct or self._through_wsgi(scope, body)

    def _caught(self, ask: Direct, scope: Message, body: bytes) -> Answer | None:
        """What `ask` gives, a refusal where it fails. Raises LongWorkError."""
        try:
            return ask(scope, body)
        except LongWorkError:
            raise
        except Exception:
            log.exception("a request failed outside of the application's error handling")
            return refusal(500, "the request could not be answered")

    def _through_wsgi(self, scope: Message, body: bytes) -> Answer:
        """The application's response."""
        status, headers = 500, list[tuple[str, str]]()

        def start_response(line: str, given: list[tuple[str, str]], _: Any = None) -> None:
            nonlocal status, headers
            status, headers = int(line[:3]), given

        try:
            parts = self._app(environ_of(scope, body), start_response)
            encoded = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
            path = path_of(scope) if scope["method"] == "POST" else ""
            if path in self._stream_paths and b"content-length" not in dict(encoded):
                return Answer(status, encoded, b"", _closing(parts))
            try:
                content = b"".join(parts)
            finally:
                getattr(parts, "close", lambda: None)()
        except Exception:
            log.exception("a request failed outside of the application's error handling")
            return refusal(500, "the request could not be answered")
        return Answer(status, encoded, content)


def heavy_threads(threads: int) -> int:
    """How many threads answer what is heavy, beside `threads` for the rest: few, as each of them takes as
    much of a processor as the event loop.
    """
    return max(1, threads // 4)


def _closing(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, closed once they have all been made, or are wanted no more."""
    try:
        yield from parts
    finally:
        getattr(parts, "close", lambda: None)()


def _start(answer: Answer) -> Message:
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": answer.headers,
    }
