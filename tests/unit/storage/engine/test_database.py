"""What a connection is made with."""

import select
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest
from sqlalchemy import make_url

from recsys.config import Settings
from recsys.errors import StorageUnavailableError
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.storage.engine.database import Database, open_database
from recsys.storage.engine.watchdog import Timeouts
from recsys.storage.entities import event_rows, history_rows


@pytest.mark.parametrize(("chosen", "level"), [({}, 2), ({"synchronous": "normal"}, 1)])
def test_a_commit_of_sqlite_is_on_the_disk_before_it_is_told(tmp_path, chosen, level):
    settings = Settings(database={"url": f"sqlite:///{tmp_path}/x.db", **chosen})
    with closing(open_database(settings)) as database:
        for connect in (database.begin, database.connect, database.read):
            with connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_is_lost_is_told_of_and_let_go(database_url):
    settings = Settings(database={"url": database_url})
    with closing(open_database(settings, held=1)) as database:
        for enter in (database.read, database.connect, database.begin):
            with enter() as connection:
                driver = connection.connection.driver_connection
            driver.close()
            with suppress(StorageUnavailableError), enter():
                pass
            assert database.engine.pool.checkedout() <= 1  # the thread's own
            with enter() as connection:
                assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_patience_covers_what_is_asked_of_others_meanwhile():
    bare = Timeouts.of(Settings(database={"busy_timeout_seconds": 0}))
    assert 0 < bare.read < bare.transaction < bare.query
    columns = {"user_column": "u", "item_column": "i", "timestamp_column": "t"}
    source = {"table": "clicks", "timeout_seconds": 4, **columns}
    mapped = Timeouts.of(Settings(database={"busy_timeout_seconds": 0}, events=source))
    assert mapped.read > bare.read + 4


SHORT = Timeouts(read=2, transaction=60, query=60, erasure=60)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_slow_statement_is_no_silent_server(database_url):
    """It is cut in its time, and nobody else is refused meanwhile or afterwards."""
    with closing(Database(database_url, timeouts=SHORT._replace(transaction=3))) as database:
        begun = threading.Event()

        def wait_long():
            with suppress(StorageUnavailableError), database.begin() as connection:
                begun.set()
                connection.exec_driver_sql("SELECT pg_sleep(60)")

        slow = threading.Thread(target=wait_long)
        slow.start()
        assert begun.wait(30)
        answers = 0
        while slow.is_alive():
            with database.read() as connection:
                answers += connection.exec_driver_sql("SELECT 1").scalar_one()
            slow.join(0.05)
        assert answers > 10
        with database.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


class Line:
    """Leads to a server, and can be held up: connections are taken and nothing is passed on."""

    def __init__(self, host, port):
        self.held = threading.Event()
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                threading.Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near):
        self._wait()
        with near, socket.create_connection(self._server) as far, suppress(OSError):
            while True:
                ready, _, _ = select.select([near, far], [], [])
                for one in ready:
                    self._wait()
                    data = one.recv(65_536)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)

    def _wait(self):
        while self.held.is_set():
            time.sleep(0.02)

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_says_nothing_is_given_up_for_all_and_taken_up_again(database_url):
    """Long before what each may take, whoever waits for it, idle connections or new ones."""
    direct = make_url(database_url)
    with closing(Line(direct.host or "127.0.0.1", direct.port)) as line:
        url = direct.set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)
        with closing(Database(url, timeouts=SHORT)) as database:
            refused = []

            def ask(enter, entered):
                with suppress(StorageUnavailableError), enter() as connection:
                    connection.exec_driver_sql("SELECT 1")
                    entered.set()
                    assert line.held.wait(30)
                    connection.exec_driver_sql("SELECT 1")
                    return
                refused.append(enter)

            threads = []
            for enter in (database.read, database.begin, database.connect):
                entered = threading.Event()
                threads.append(threading.Thread(target=ask, args=(enter, entered)))
                threads[-1].start()
                assert entered.wait(30)
            line.held.set()
            for thread in threads:
                thread.join(30)
            assert len(refused) == 3
            with pytest.raises(StorageUnavailableError, match="does not answer"), database.read():
                pass
            line.held.clear()

            answers = []
            for _ in range(300):
                with suppress(StorageUnavailableError), database.read() as connection:
                    answers.append(connection.exec_driver_sql("SELECT 1").scalar_one())
                if answers:
                    break
                time.sleep(0.1)
            assert answers == [1]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_read_begins_no_transaction_after_its_connection_was_lost(database_url):
    with closing(Database(database_url, timeouts=SHORT)) as database:
        with database.read() as connection:
            connection.connection.driver_connection.close()
        for _ in range(2):
            with suppress(StorageUnavailableError), database.read() as connection:
                connection.exec_driver_sql("SELECT 1")
                driver = connection.connection.driver_connection
        assert driver.autocommit
        assert driver.info.transaction_status == 0  # idle


def test_as_many_connections_as_were_asked_for_can_be_in_use(database_url):
    with closing(Database(database_url, pool_size=20)) as database, ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(database.connect())
        view = Event("u", None, "a", "view", 1, None, None, None, None)
        with database.begin() as connection:
            event_rows.insert_events(connection, [view], 1)
        with database.connect() as connection:
            (found,) = history_rows.history(connection, Owner("u")).events
        assert found.item_id == "a"


def test_an_absent_server_is_unavailable_and_shows_no_password():
    database = Database("postgresql://me:hunter2@127.0.0.1:1/nothing", busy_timeout_seconds=1)
    with pytest.raises(StorageUnavailableError) as caught, database.connect():
        pass
    assert "hunter2" not in str(caught.value)
    assert caught.value.retry_after_seconds > 0
