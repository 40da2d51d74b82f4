"""The service: worker processes that each answer HTTP by Granian.

Granian speaks HTTP without the interpreter's lock and closes connections that send no head; bodies and
threads are recsys.web.asgi_bridge's, processes recsys.web.worker_processes'. Why: docs/decisions/0020.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from types import ModuleType

import structlog
from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from recsys import tracing
from recsys.config import Settings
from recsys.errors import ConfigError, SourceUnavailableError
from recsys.ops.webhook import SchedulerWatch, Webhook
from recsys.storage.engine.database import open_database
from recsys.storage.external.external_events import ExternalEvents
from recsys.web import prometheus_metrics
from recsys.web.admin.exports_page import EXPORT_PATHS
from recsys.web.admin.login_page import HASHING_PATHS
from recsys.web.app import create_app
from recsys.web.asgi_bridge import AsgiBridge, Bounds, WsgiApp, heavy_threads
from recsys.web.direct_answers import DirectAnswers, is_heavy
from recsys.web.rate_limits import Limits, open_limits
from recsys.web.worker_processes import Alive, WorkerProcesses

log = structlog.get_logger(__name__)

M_MMAP_THRESHOLD = -3  # of mallopt(3)
MAPPED_BYTES = 65_536
GRACE_SECONDS = 30.0  # for a worker to end once it is told to
FINISH_SECONDS = 25.0  # of those, for requests that have arrived in part or whole
FLUSH_SECONDS = 1.0  # for the last answers to be sent
LISTEN_SECONDS = 0.1  # until Granian listens
BEAT_SECONDS = 1.0
HEAD_MS = 30_000  # to send a head, counted from the answer before: also how long one may be idle
HEAD_BYTES = 16_384
BACKLOG = 1_024
MAX_CONNECTIONS = 10_000  # of a worker
OTHER_FILES = 200  # open files of a worker that are no client's: database, model, metrics, log
WATCHING_SLOT = 0  # the worker that looks after whether anyone schedules


def serve(
    settings: Settings,
    wrap: Callable[[Flask], WsgiApp] = lambda app: app,
    announce: Callable[[str, int], None] = lambda address, port: None,
) -> None:
    """Serve until told to stop; SIGTERM lets requests in hand finish.

    `wrap`: what is served in place of the app, made of it in each worker before its first request;
    `announce` is called with address and port once they are this service's.
    Raises ConfigError where the address cannot be had, or where an external table lacks the index
    that requests need; RecsysError where no worker can start.
    """
    serving = settings.serving
    Webhook(settings)  # refuses what cannot be before anything serves
    _check_source(settings)
    with _reserve(serving.host, serving.port) as reserved:
        # One for all workers: they inherit its memory.
        limits = open_limits(settings.auth.limits.get_secret_value())
        address, port = reserved.getsockname()[:2]
        announce(address, port)

        def work(slot: int, alive: Alive) -> None:
            _map_large_arrays()
            _do_without_pandas()
            app = _load(settings, limits)
            stop = threading.Event()
            _start_threads(app, slot, stop)
            bounds = Bounds(serving.max_body_bytes)
            direct = DirectAnswers(app)
            bridge = AsgiBridge(
                wrap(app), serving.threads, bounds, HASHING_PATHS, direct, EXPORT_PATHS, is_heavy
            )
            asyncio.run(_listen(bridge, address, port, alive))
            stop.set()
            app.extensions["recsys"].close()  # writes what waits

        workers = WorkerProcesses(serving.workers, work, prometheus_metrics.forget_process)
        workers.run(GRACE_SECONDS)


async def _listen(bridge: AsgiBridge, address: str, port: int, alive: Alive) -> None:
    """Answer requests until SIGTERM; those in hand are finished."""
    server = Server(
        bridge,
        address=address,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=_connections(),
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_MS, max_buffer_size=HEAD_BYTES),
        log_level=LogLevels.error,
    )
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    # A terminal's Ctrl-C reaches every process; the parent's SIGTERM follows it.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    listening = asyncio.create_task(server.serve())
    beating = asyncio.create_task(_beat(alive))
    stopping = asyncio.create_task(terminated.wait())
    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.stop()  # type: ignore[no-untyped-call]
    with suppress(TimeoutError):
        async with asyncio.timeout(FINISH_SECONDS):
            while bridge.unanswered:
                await asyncio.sleep(0.01)
    # Connections that are idle, or have sent half a head, hold up no end.
    await asyncio.wait({listening}, timeout=FLUSH_SECONDS)
    beating.cancel()


async def _beat(alive: Alive) -> None:
    """Tell the parent that this worker serves; end where there is no parent to tell."""
    await asyncio.sleep(LISTEN_SECONDS)
    try:
        while True:
            alive()
            await asyncio.sleep(BEAT_SECONDS)
    except BrokenPipeError:
        os.kill(os.getpid(), signal.SIGTERM)


def _load(settings: Settings, limits: Limits) -> Flask:
    """The application, warm before its first request.

    Made in each worker: neither connections nor the threads of numeric libraries survive a fork.
    """
    tracing.start(settings)
    # The event loop and each thread hold one connection for their reads; writes and the rest share the others.
    threads = settings.serving.threads
    database = open_database(settings, held=1 + threads + heavy_threads(threads))
    app = create_app(settings, database, limits)
    app.extensions["recsys"].recommender.bundle()
    gc.freeze()  # what is there by now stays; collecting garbage need not look at it again
    return app


def _map_large_arrays() -> None:
    """Have the C library map arrays of MAPPED_BYTES and more on their own, and give them back when freed.

    An answer makes arrays as long as the catalogue; on the heap, small objects that are kept between
    them hold their room for good. Nothing changes where the C library has no such setting.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def _do_without_pandas() -> None:
    """Have no library load pandas: pyarrow does at the first list that it is given, to see whether that
    is one of pandas', which costs 0.3 s and 30 MiB.
    """
    sys.meta_path.insert(0, _NoPandas())


class _NoPandas(MetaPathFinder):
    """Finds everything else. (None in sys.modules would do for Python, and break pyarrow's first list.)"""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a process that serves does without pandas", name=fullname)


def _start_threads(app: Flask, slot: int, stop: threading.Event) -> None:
    """Follow the models that are deployed and the events that come; one of the workers watches the
    scheduler.
    """
    shared = app.extensions["recsys"]
    recommender = shared.recommender
    follow = recommender.active.follow
    threading.Thread(
        target=follow,
        args=(recommender.deployed, stop, recommender.tidy_cache),
        name="follow",
        daemon=True,
    ).start()
    live = recommender.live
    if live is not None:
        live.start(lambda: prometheus_metrics.note_live(live))
    if slot == WATCHING_SLOT:
        watch = SchedulerWatch(shared.database, Webhook(shared.settings), time.monotonic)
        threading.Thread(target=watch.run, args=(stop,), name="watch", daemon=True).start()


def _connections() -> int:
    """How many connections a worker takes: more wait to be accepted, and none fails for want of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, soft - OTHER_FILES))


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that has the address and never listens; the workers' own share it. Port 0: some free one.

    Raises ConfigError where another has the address: sharing would let a second server take a part
    of the connections unnoticed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            address = alone.getsockname()
        reserved = socket.socket(family, kind, protocol)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(address)
        except OSError:
            reserved.close()
            raise
    except OSError as error:
        reason = "in use" if error.errno == errno.EADDRINUSE else "not one that can be listened at"
        raise ConfigError("serving.port", f"{host}:{port}", f"the address is {reason}") from None
    return reserved


def _check_source(settings: Settings) -> None:
    """Raise ConfigError where an external table cannot be served from."""
    if settings.events.mapped:
        source = ExternalEvents(settings, open_database(settings))
        try:
            source.serving()
        except SourceUnavailableError as error:  # it may be back at the first request
            log.warning("mapped_table_away", reason=str(error))
        source.close()
