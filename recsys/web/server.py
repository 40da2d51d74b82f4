"""The service under gunicorn, a production WSGI server."""

from __future__ import annotations

import atexit
import errno
import gc
import itertools
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers import gthread

from recsys import tracing
from recsys.config import Settings
from recsys.errors import ConfigError, SourceUnavailableError
from recsys.ops.scheduler_watch import SchedulerWatch
from recsys.ops.webhook import Webhook
from recsys.storage.engine.database import open_database
from recsys.storage.external.external_events import ExternalEvents
from recsys.web import prometheus_metrics
from recsys.web.app import create_app
from recsys.web.patience import HEAD_SECONDS, SEND_SECONDS, Lingering, PatientUnreader, half_arrived
from recsys.web.rate_limits import open_limits

GRACE_SECONDS = 30
LOOK_ROUND_SECONDS = 0.25
_SLOW = object()  # a head that has not arrived whole
NOTIFY_SECONDS = 1.0

Wrap = Callable[[Flask], Any]  # an app, to the WSGI application that is served


class _Connection(gthread.TConn):  # type: ignore[misc]
    """A connection that has sent nothing yet goes back to the poller: gunicorn's own would hold a
    thread for five seconds, so a few silent ones would stop all answers.
    """

    places = threading.Semaphore()  # of this process; each worker sets its own
    lingering = Lingering()  # of this process
    give_up_at: float | None = None  # while a head has begun to arrive

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self.lingering.add(self.sock)
        else:
            super().close()

    def wait_for_data(self, _timeout: float) -> bool:
        return bool(super().wait_for_data(0.0))

    def init(self) -> None:
        fresh = not self.initialized
        super().init()
        if fresh and not self.is_http2:
            self.parser.unreader = PatientUnreader(self.sock, self.places)
        if not self.is_http2:
            self.parser.unreader.begin()


class _Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """A worker with a door of its own: the kernel spreads connections over the listening sockets,
    of which each worker has one. At one common socket, the first worker to wake takes them all, and
    connections that stay open leave the others idle.

    What waits at another's door is taken in after LOOK_ROUND_SECONDS, so that a worker that is busy
    or gone keeps nobody waiting. The sockets are the parent's: none closes when a worker ends.
    """

    slot = 0
    sockets: list[Any]  # all of the parent's, until the worker takes its own
    _notified = 0.0
    _looked_at_slow = 0.0

    def init_process(self) -> None:
        self._slow: list[_Connection] = []
        _Connection.places = threading.Semaphore(max(1, self.cfg.threads - 1))
        self._all, self._looked = list(self.sockets), time.monotonic()
        self.sockets = [self._all[self.slot % len(self._all)]]
        super().init_process()

    def notify(self) -> None:
        """Tell the parent that this worker lives: once a second, not at each of its turns."""
        now = time.monotonic()
        if now - self._notified >= NOTIFY_SECONDS:
            self._notified = now
            super().notify()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, LOOK_ROUND_SECONDS))
        now = time.monotonic()
        if self._accepting and now - self._looked >= LOOK_ROUND_SECONDS:
            self._looked = now
            for listener in self._all:
                if listener not in self.sockets:
                    listener.setblocking(False)
                    self.accept(listener)
        if now - self._looked_at_slow >= LOOK_ROUND_SECONDS:
            self._looked_at_slow = now
            self._look_at_slow(now)
            _Connection.lingering.look()

    def handle(self, conn: _Connection) -> Any:
        """In a thread: answer, unless the head is not whole yet."""
        if half_arrived(conn.sock):
            return _SLOW
        conn.give_up_at = None
        return super().handle(conn)

    def handle_request(self, req: Any, conn: _Connection) -> Any:
        conn.sock.settimeout(SEND_SECONDS)
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: _Connection, keepalive: bool) -> bool:
        """Of a client that was given up, no more is read."""
        return not conn.parser.unreader.gave_up and super()._keepalive_after(conn, keepalive)

    def finish_request(self, conn: _Connection, fs: Any) -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result() is not _SLOW:
            super().finish_request(conn, fs)
            return
        if conn.give_up_at is None:
            conn.give_up_at = time.monotonic() + HEAD_SECONDS
        self._slow.append(conn)

    def _look_at_slow(self, now: float) -> None:
        """Heads that have arrived by now get a thread; those that take too long are let go."""
        waiting, self._slow = self._slow, []
        for conn in waiting:
            if not half_arrived(conn.sock):
                self.enqueue_req(conn)
            elif self.alive and conn.give_up_at is not None and now < conn.give_up_at:
                self._slow.append(conn)
            else:
                self.nr_conns -= 1
                conn.close()


def _before_fork(server: Any, worker: Any) -> None:
    """Give a new worker the place of one that is gone."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def _begun(app: Flask) -> Any:
    def watch(worker: Any) -> None:
        """One of the workers looks after whether anyone schedules."""
        if worker.slot != 0:
            return
        shared = app.extensions["recsys"]
        scheduling = SchedulerWatch(shared.database, Webhook(shared.settings), time.monotonic)
        stop = threading.Event()
        atexit.register(stop.set)
        threading.Thread(target=scheduling.run, args=(stop,), name="watch", daemon=True).start()

    return watch


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, options: dict[str, Any], wrap: Wrap) -> None:
        self._settings, self._options = settings, options
        self._wrap = wrap
        # One for all workers: they inherit its memory.
        self._limits = open_limits(settings.auth.limits.get_secret_value())
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # Called in each worker: neither connections nor torch's threads survive a fork.
        tracing.start(self._settings)
        # Each thread holds one connection for its reads; writes and the rest share the others.
        database = open_database(self._settings, held=self._settings.serving.threads)
        app = create_app(self._settings, database, self._limits)
        recommender = app.extensions["recsys"].recommender
        recommender.bundle()  # loaded and warm before the first request
        gc.freeze()  # what is there by now stays; collecting garbage need not look at it again
        stop = threading.Event()
        threading.Thread(
            target=recommender.active.follow,
            args=(recommender.deployed, stop, recommender.tidy_cache),
            name="follow",
            daemon=True,
        ).start()
        atexit.register(stop.set)
        self.cfg.set("worker_exit", _worker_exit(app))
        self.cfg.set("post_worker_init", _begun(app))
        return self._wrap(app)


def _worker_exit(app: Flask) -> Any:
    def close(_server: Any, _worker: Any) -> None:
        """Requests are done: write what waits."""
        app.extensions["recsys"].close()

    return close


def _doors(host: str, port: int, count: int) -> list[socket.socket]:
    """Listening sockets that share one address; port 0 is some free one.

    Raises ConfigError where another has the address: sharing would let a second server take a part
    of the connections unnoticed.
    """
    doors: list[socket.socket] = []
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        for number in range(count):
            door = socket.socket(family, kind, protocol)
            doors.append(door)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if number == 0:
                with socket.socket(family, kind, protocol) as alone:
                    alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    alone.bind(address)
                    address = alone.getsockname()
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            door.bind(address)
    except OSError as error:
        for door in doors:
            door.close()
        reason = "in use" if error.errno == errno.EADDRINUSE else "not one that can be listened at"
        raise ConfigError("serving.port", f"{host}:{port}", f"the address is {reason}") from None
    return doors


def _child_exit(_server: Any, worker: Any) -> None:
    prometheus_metrics.forget_process(worker.pid)


def _check_source(settings: Settings) -> None:
    """Raise ConfigError where a mapped table cannot be served from."""
    if settings.events.mapped:
        source = ExternalEvents(settings, open_database(settings))
        # One that is away now may be back at the first request.
        with suppress(SourceUnavailableError):
            source.serving()
        source.close()


def serve(settings: Settings, wrap: Wrap = lambda app: app) -> None:
    """Serve until told to stop; SIGTERM lets requests in hand finish.

    `wrap`: what is served in place of the app, made of it in each worker before its first request.

    Raises ConfigError where the address cannot be had, or where a mapped event table lacks the index
    that requests need.
    """
    serving = settings.serving
    Webhook(settings)  # refuses what cannot be before anything serves
    _check_source(settings)
    doors = _doors(serving.host, serving.port, serving.workers)
    options = {
        "bind": [f"fd://{door.detach()}" for door in doors],  # gunicorn closes them
        "workers": serving.workers,
        "threads": serving.threads,
        "worker_class": _Worker,
        "graceful_timeout": GRACE_SECONDS,
        "timeout": 120,
        "keepalive": 30,
        "preload_app": False,
        "accesslog": None,
        "errorlog": "-",
        "loglevel": "warning",
        "proc_name": "recsys",
        "control_socket_disable": True,
        "child_exit": _child_exit,
        "pre_fork": _before_fork,
        "limit_request_line": 8_190,
        "limit_request_fields": 64,
        "limit_request_field_size": 8_190,
    }
    gthread.TConn = _Connection
    _Server(settings, options, wrap).run()
