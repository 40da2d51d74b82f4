"""Which answers are given on the event loop, and when threads give them instead."""

import asyncio
import threading
import time
from contextlib import nullcontext

from recsys.serving.long_work import long_work
from recsys.serving.popularity import Popularity
from recsys.web import loop_answers
from recsys.web.asgi_bridge import AsgiBridge, Bounds
from recsys.web.asgi_messages import Answer
from tests.unit.web.test_asgi_bridge import Client, echo, length, scope_of


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def answered(direct, count=1, body=b""):
    """Statuses of `count` requests, one after the other."""

    async def run():
        bridge = AsgiBridge(echo, 2, Bounds(100), direct=direct)
        found = []
        for _ in range(count):
            client = Client(bridge, scope_of(headers=length(len(body)) if body else ()))
            if body:
                client.put(body, more=False)
            found.append((await client.answer())[0])
        return found

    return asyncio.run(run())


def test_a_quick_answer_is_given_on_the_loop():
    seen = []

    def direct(scope, body):
        seen.append((threading.current_thread() is threading.main_thread(), body))
        return Answer(201, [], b"")

    assert answered(direct, 2, body=b"x") == [201, 201]
    assert seen == [(True, b"x")] * 2


def test_long_work_is_left_to_a_thread_and_nothing_is_answered_twice():
    seen = []

    def direct(scope, body):
        seen.append(threading.current_thread() is threading.main_thread())
        long_work()
        seen.append("done")
        return Answer(201, [], b"")

    assert answered(direct, 2) == [201, 201]
    assert seen == [True, False, "done"] * 2


def test_after_a_slow_answer_threads_answer_for_a_while():
    clock, where, spent = Clock(), [], iter([0.2, 0.0, 0.2, 0.0, 0.0, 0.0])
    pauses = iter([0.0, loop_answers.REST_SECONDS - 0.5, 1.0, loop_answers.REST_SECONDS, 0.0, 0.0])

    def direct(scope, body):
        where.append(threading.current_thread() is threading.main_thread())
        clock.now += next(spent)
        return Answer(201, [], b"")

    async def run():
        bridge = AsgiBridge(echo, 2, Bounds(100), direct=direct)
        bridge._direct._clock = clock
        for pause in pauses:
            clock.now += pause
            await Client(bridge, scope_of()).answer()

    asyncio.run(run())
    # Slow on the loop; a thread; slow again on the loop; a thread is quick at the end of the rest.
    assert where == [True, False, True, True, True, True]


def test_a_slow_answer_in_a_thread_prolongs_the_rest_but_for_long_work():
    clock, where = Clock(), []
    steps = iter([(0.0, 0.2, False), (1.0, 0.2, False), (1.5, 0.2, True), (0.6, 0.0, False)])

    def direct(scope, body):
        _, spent, long = current
        where.append(threading.current_thread() is threading.main_thread())
        if long:
            long_work()
        clock.now += spent
        return Answer(201, [], b"")

    async def run():
        nonlocal current
        bridge = AsgiBridge(echo, 2, Bounds(100), direct=direct)
        bridge._direct._clock = clock
        for current in steps:
            clock.now += current[0]
            await Client(bridge, scope_of()).answer()

    current = None
    asyncio.run(run())
    assert where == [True, False, False, True]


def test_requests_that_wait_for_the_loop_too_long_are_refused_until_it_is_free():
    def direct(scope, body):
        clock.now += 0.09  # not slow, but there are many
        return Answer(201, [], b"")

    async def run():
        bridge = AsgiBridge(echo, 2, Bounds(100), direct=direct)
        bridge._direct._clock = clock
        waves = []
        for _ in range(3):
            clients = [Client(bridge, scope_of()) for _ in range(40)]
            waves.append([(await client.answer())[0] for client in clients])
        return waves

    clock = Clock()
    first, second, third = asyncio.run(run())
    assert first == [201] * 40  # 3.6 s of them
    assert second[0] == 503
    assert 503 not in third[-10:]


def test_what_is_not_answered_directly_and_what_fails():
    assert answered(lambda scope, body: None, body=b"abc") == [200]

    def failing(scope, body):
        raise KeyError("of no importance")

    assert answered(failing) == [500]


class Source:
    def __init__(self):
        self.counted_by = []

    def popular_items(self, connection, query):
        self.counted_by.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.01)
        return [("a", len(self.counted_by))]


class Storage:
    def connect(self):
        return nullcontext()


def test_a_count_that_is_due_is_made_by_a_thread():
    clock, source = Clock(), Source()
    popularity = Popularity(clock, source)

    def direct(scope, body):
        counts = popularity.counts(Storage(), 10**15, 7, None)
        return Answer(200 + counts[0][1], [], b"")

    assert answered(direct, 3) == [201, 201, 201]
    clock.now += 61
    assert answered(direct, 2) == [202, 202]
    assert source.counted_by == [False, False]
