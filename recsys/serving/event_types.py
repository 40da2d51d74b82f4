"""Which event types the log holds, so that a misspelt one in a request is told."""

from __future__ import annotations

from collections.abc import Callable, Collection

from recsys.config import Settings
from recsys.config.exclude_seen import named_types
from recsys.errors import unknown
from recsys.models.bundle import Bundle
from recsys.serving.answers import Request
from recsys.storage.engine.database import Connection
from recsys.storage.entities import event_rows

KEEP_SECONDS = 60.0
MOST_OF_PAGES = 200  # types that there may be for a page to bring another


class EventTypes:
    """The types of events, as counted and among the newest; read once a minute, and where
    a request names one that is not among them."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._default = settings.serving.exclude_seen
        self._configured = settings.event_types()
        self._held: tuple[float, frozenset[str]] | None = None
        self._brought: set[str] = set()  # by pages, and not yet among those that are read

    def check(self, connection: Connection, request: Request, bundle: Bundle | None) -> str | None:
        """What is to be told of the types that a request names in `exclude_seen`; None: nothing.

        A type that is configured, or that a scenario names, may have no events yet. Raises InputError for any other that no
        event is of, unless nothing is known of the log.
        """
        named = named_types(request.exclude_seen)
        if not named or request.exclude_seen == self._default:
            return None
        known = {event.event_type for event in request.events}
        known.update(bundle.event_types if bundle is not None else ())
        for seconds in (KEEP_SECONDS, 0.0):
            known |= self._stored(connection, seconds)
            if named <= known:
                return None
        if not known:
            return None
        missing = sorted(named - known)
        written = {
            name.lower() for name in known
        }  # of a type that there is, another spelling is none
        for name in missing if request.scenario_spec is None else ():
            if name not in self._configured or name.lower() in written:
                expected = "true, all, none or types of events"
                raise unknown("exclude_seen", name, expected, sorted(known))
        return f"exclude_seen: no event is of type {', '.join(missing)} yet"

    def beyond(self, connection: Connection, posted: Collection[str]) -> set[str]:
        """Those of the types that a page has `posted` which it may not bring: what there is may always
        come, what there is not while types are few. Whoever reads a page's key can make up any number.
        """
        known = self._stored(connection, KEEP_SECONDS) | self._configured
        self._brought -= known
        new = sorted(set(posted) - known - self._brought)
        room = max(0, MOST_OF_PAGES - len(known) - len(self._brought))
        self._brought.update(new[:room])
        return set(new[room:])

    def _stored(self, connection: Connection, lasts: float) -> frozenset[str]:
        now = self._clock()
        if self._held is None or now - self._held[0] >= lasts:
            self._held = (now, frozenset(event_rows.event_types(connection)))
        return self._held[1]
