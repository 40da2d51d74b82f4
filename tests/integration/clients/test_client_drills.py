"""A real service, killed and started again beneath both clients: every event is stored, once."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from recsys_client import QueueOptions, Recsys
from sqlalchemy import func, select

from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events
from tests.integration.clients.test_node_client import install

KILLS = 8
PROGRAM = """
import { Recsys } from "recsys-client";
const [url, key] = process.argv.slice(2);
const recsys = new Recsys({ url, key, onError: () => {}, waitMs: 5, maxBatch: 20, maxWaiting: 1e6, timeoutMs: 2000 });
let tracked = 0;
let stopped = false;
process.stdin.on("data", () => { stopped = true; });
while (!stopped) {
  recsys.track("view", `n${tracked}`, { user_id: "node" });
  tracked += 1;
  await new Promise((done) => setTimeout(done, 20));
}
while (recsys.counts.waiting) { await recsys.flush(); await new Promise((done) => setTimeout(done, 50)); }
console.log(JSON.stringify({ tracked, ...recsys.counts }));
process.exit(0);
"""


class KilledService:
    """`recsys serve` in a process group of its own."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "config.toml"
        config.write_text(
            f'[database]\nurl = "sqlite:///{folder}/recsys.db"\n[registry]\npath = "{folder}/models"\n'
            f"[serving]\nport = {self.port}\nworkers = 1\n"
        )
        self.command = [sys.executable, "-m", "recsys", "serve", "--config", config]
        self.log = (folder / "serve.log").open("w")
        self.start()

    def start(self):
        given = {"stdout": self.log, "stderr": self.log, "start_new_session": True}
        self.process = subprocess.Popen(self.command, **given)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the service did not start")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self):
        self.kill()
        self.log.close()


@pytest.mark.slow
def test_events_through_a_service_that_is_killed_are_stored_once(node, package, tmp_path):
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    with database.begin() as connection:
        key = key_rows.create_key(connection, "shop", ["read", "write"], 1)
    program = install(package, tmp_path) / "program.mjs"
    program.write_text(PROGRAM)
    rng, stop, tracked = random.Random(1), threading.Event(), []
    with closing(database), closing(KilledService(tmp_path)) as service:
        # A start may take minutes on a busy machine: nothing is to be dropped meanwhile.
        bounds = {"max_waiting": 1_000_000, "max_batch": 20, "linger_seconds": 0.005}
        queue = QueueOptions(**bounds, on_error=lambda *_: None)
        python = Recsys(service.url, key, timeout_seconds=2, queue=queue)

        def shop():
            while not stop.wait(0.02):
                tracked.append(python.track(f"p{len(tracked)}", user_id="python"))

        shopping = threading.Thread(target=shop)
        shopping.start()
        command = ["node", program, service.url, key]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as running:
            for _ in range(KILLS):
                time.sleep(rng.uniform(0.3, 1.5))
                service.kill()
                time.sleep(rng.uniform(0, 0.5))
                service.start()
            stop.set()
            shopping.join()
            said, _ = running.communicate("stop\n", timeout=120)
        assert python.flush(120)
        python.close()
        of_node = json.loads(said)
        for owner, sent, counts in (
            ("python", len(tracked), vars(python.counts)),
            ("node", of_node.pop("tracked"), of_node),
        ):
            with database.connect() as connection:
                rows = select(func.count(), func.count(events.c.item_id.distinct()))
                stored = connection.execute(rows.where(events.c.user_id == owner)).one()
            assert tuple(stored) == (sent, sent), counts
            assert counts["accepted"] + counts["duplicates"] == sent > 200, counts
            print(owner, sent, counts)
