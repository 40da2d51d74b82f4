"""How long a client may take: a few slow ones must not hold the threads that answer the others.

A request gets a thread once its head has arrived; of its body, only so many threads of a worker may wait
at once, and none for long. Behind a proxy that reads bodies first, none of this is ever needed.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections import deque

from gunicorn.http.unreader import SocketUnreader

HEAD_SECONDS = 10.0  # from a head's first byte to its end
BODY_SECONDS = 30.0  # from a head's end to that of its body
SEND_SECONDS = 30.0  # for an answer to be taken
LINGER_SECONDS = 2.0  # for a client to read an answer after which the connection closes
MAX_LINGERING = 1_000
PEEK_BYTES = 16_384  # of a head that is larger, the rest is waited for as for a body
END = b"\r\n\r\n"


class SlowClientError(ConnectionResetError):
    """The client took too long, or too many do at this moment."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is too slow")


class Lingering:
    """Connections that are answered and half closed, until their clients have read the answer.

    Closing one at once may cut its answer off (RFC 9112, section 9.6). gunicorn's own way waits for the
    client in the loop that serves everyone, for up to two seconds.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, socket.socket]] = deque()

    def add(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        self._waiting.append((time.monotonic() + LINGER_SECONDS, sock))

    def look(self) -> None:
        """Close those whose clients are done, that have had their time, or that are too many."""
        for _ in range(len(self._waiting)):
            until, sock = self._waiting.popleft()
            if self._is_open(sock) and time.monotonic() < until:
                self._waiting.append((until, sock))
            else:
                sock.close()
            if len(self._waiting) > MAX_LINGERING:
                self._waiting.popleft()[1].close()

    def _is_open(self, sock: socket.socket) -> bool:
        try:
            return bool(sock.recv(PEEK_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            return False


def half_arrived(sock: socket.socket) -> bool:
    """Whether a request has begun to arrive and its head is not whole."""
    try:
        begun = sock.recv(PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return 0 < len(begun) < PEEK_BYTES and END not in begun


class PatientUnreader(SocketUnreader):  # type: ignore[misc]
    """Reads what is there, and waits for more only within bounds."""

    def __init__(self, sock: socket.socket, places: threading.Semaphore) -> None:
        """`places`: how many threads of this process may wait at once."""
        super().__init__(sock)
        self._places, self._until = places, 0.0
        self.gave_up = False

    def begin(self) -> None:
        """A request's head is there: its body may take this long from now on."""
        self._until = time.monotonic() + BODY_SECONDS

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Raises SlowClientError."""
        if not self._readable(0.0):
            self.gave_up = True
            if not self._places.acquire(blocking=False):
                raise SlowClientError
            try:
                if not self._readable(self._until - time.monotonic()):
                    raise SlowClientError
            finally:
                self._places.release()
            self.gave_up = False
        data: bytes = super().chunk(size_hint)
        return data

    def _readable(self, seconds: float) -> bool:
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        return bool(waiting.poll(max(0.0, seconds) * 1e3))
