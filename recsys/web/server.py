"""The service under gunicorn, a production WSGI server."""

from __future__ import annotations

import atexit
import gc
import threading
from typing import Any

from flask import Flask, Response
from gunicorn.app.base import BaseApplication
from gunicorn.workers import gthread

from recsys.config import Settings
from recsys.storage.database import Database
from recsys.web import metrics
from recsys.web.app import create_app
from recsys.web.limits import RateLimits

GRACE_SECONDS = 30


class _Connection(gthread.TConn):  # type: ignore[misc]
    """A connection that has sent nothing yet goes back to the poller: gunicorn's own would hold a
    thread for five seconds, so a few silent ones would stop all answers.
    """

    def wait_for_data(self, _timeout: float) -> bool:
        return bool(super().wait_for_data(0.0))


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(
        self, settings: Settings, url: str, options: dict[str, Any], with_empty: bool
    ) -> None:
        self._settings, self._url, self._options = settings, url, options
        self._with_empty = with_empty
        self._limits = RateLimits()  # one for all workers: they inherit its memory
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # Called in each worker: neither connections nor torch's threads survive a fork.
        chosen = self._settings.database
        # Each thread holds one connection for its reads; writes and the rest share the others.
        pool = chosen.pool_size + self._settings.serving.threads
        database = Database(self._url, pool, chosen.busy_timeout_seconds)
        app = create_app(self._settings, database, self._limits)
        recommender = app.extensions["recsys"].recommender
        recommender.bundle()  # loaded and warm before the first request
        gc.freeze()  # what is there by now stays; collecting garbage need not look at it again
        stop = threading.Event()
        threading.Thread(
            target=recommender.active.follow,
            args=(recommender.deployed, stop),
            name="follow",
            daemon=True,
        ).start()
        atexit.register(stop.set)
        self.cfg.set("worker_exit", _worker_exit(app))
        return beside_empty(app) if self._with_empty else app


def _worker_exit(app: Flask) -> Any:
    def close(_server: Any, _worker: Any) -> None:
        """Requests are done: write the answers that wait."""
        app.extensions["recsys"].impressions.close()

    return close


def beside_empty(app: Flask) -> Any:
    """`app` with a bare Flask view at /empty, which measurements compare with."""
    bare = Flask("recsys.empty")

    @bare.get("/empty")
    def empty() -> Response:
        return Response(b'{"items":[]}', mimetype="application/json")

    def choose(environ: dict[str, Any], start_response: Any) -> Any:
        return (bare if environ["PATH_INFO"] == "/empty" else app)(environ, start_response)

    return choose


def _child_exit(_server: Any, worker: Any) -> None:
    metrics.forget_process(worker.pid)


def serve(settings: Settings, *, with_empty: bool = False) -> None:
    """Serve until told to stop; SIGTERM lets requests in hand finish."""
    serving = settings.serving
    options = {
        "bind": f"{serving.host}:{serving.port}",
        "workers": serving.workers,
        "threads": serving.threads,
        "worker_class": "gthread",
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
        "limit_request_line": 8_190,
        "limit_request_fields": 64,
        "limit_request_field_size": 8_190,
    }
    gthread.TConn = _Connection
    _Server(settings, settings.database.url.get_secret_value(), options, with_empty).run()
