"""One shop, read from Python: its events, items, users, sequences, recommendations and evaluation."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import structlog

from recsys.config import Settings, load_settings
from recsys.errors import InputError, StorageUnavailableError
from recsys.events.frame import EventFrame
from recsys.events.sequences import build_sequences
from recsys.events.times import to_us
from recsys.sequence_store.training_window import window_start_us
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.shop import data_frames, plots
from recsys.storage.engine.database import open_read_only
from recsys.storage.entities import attribute_rows, item_rows
from recsys.storage.events_source import open_events_source
from recsys.text_rules import stored_text_problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_K = 1_000
MAX_USERS = 100_000  # of one call
PAGE_ROWS = 1_000

Moment = str | datetime | pd.Timestamp


class Shop:
    """A shop as DataFrames. It only reads: its connections are refused every write, answers are not
    logged as impressions, and sequence files are left to trainings.

    Use it as a context manager, or `close()` it. Every call reads again, so it tells what is there now.
    All methods raise StorageUnavailableError where the database cannot be reached, and InputError
    naming the argument that is not acceptable. Times are aware and in UTC.
    """

    def __init__(self, config: str | os.PathLike[str] | Settings | None = None) -> None:
        """`config`: as `recsys.open` takes it. Raises ConfigError."""
        if (
            not structlog.is_configured()
        ):  # else every line of a service's log is an output of a cell
            quiet = structlog.make_filtering_bound_logger(logging.WARNING)
            structlog.configure(wrapper_class=quiet)
        if not isinstance(config, Settings):
            config = load_settings(None if config is None else Path(config))
        # Nobody is in an arm of a comparison here: everybody is answered by the champion.
        serving = config.serving.model_copy(update={"control_share": 0.0})
        self.settings = config.model_copy(update={"serving": serving})
        self._database = open_read_only(self.settings)
        self._source = open_events_source(self.settings, self._database)
        self._recommender: Recommender | None = None

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Shop({self._database.url.render_as_string(hide_password=True)})"

    def close(self) -> None:
        """Close the connections; a call after that opens others."""
        if self._recommender is not None:
            self._recommender.close()
            self._recommender = None
        self._source.close()
        self._database.close()

    def events(
        self,
        since: Moment | None = None,
        until: Moment | None = None,
        users: str | Iterable[str] | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Events by time, those with since <= timestamp < until; of ties the first to arrive is first.

        `users`: those of these users alone, with those of sessions and users merged into them; ids are
        as they were sent. `limit`: the newest so many, in the memory of twice as many.

        One row an event: user_id, session_id, item_id, event_type (texts; user_id or session_id may
        be missing), timestamp (datetime64[us, UTC]), event_id, value (float), recommendation_id,
        properties (dict, or None). Times without a zone are in UTC.
        """
        bounds = data_frames.Bounds(_moment("since", since), _moment("until", until))
        if limit is not None and limit < 1:
            raise InputError("limit", limit, "expected at least 1")
        if users is None:
            tables = data_frames.tables_of(self._source.export_batches(to_us(_now())))
        else:
            tables = self._events_of(_users(users))
        return data_frames.event_frame(data_frames.newest(tables, bounds, limit))

    def items(self) -> pd.DataFrame:
        """The catalogue by item_id (the index), in order of the ids.

        title, categories (list of texts), price (float), image, available (bool), created_at,
        updated_at, and a column `properties.<name>` for each property. Raises InputError where there
        are more than 1,000 of those.
        """
        rows: list[item_rows.StoredItem] = []
        with self._database.connect() as connection:
            while page := item_rows.list_items(
                connection, None, None, PAGE_ROWS, rows[-1].item_id if rows else None
            ):
                rows += page
        return data_frames.item_frame(rows)

    def users(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Users' attributes by user_id (the index), in order of the bytes of the ids.

        A column for each attribute; missing where a user has none of its name. `names`: these columns
        alone. Raises InputError where there are more than 1,000.
        """
        found: dict[str, dict[str, object]] = {}
        last: str | None = None
        with self._database.connect() as connection:
            while page := attribute_rows.list_attributes(connection, PAGE_ROWS, last):
                found.update((one.user_id, one.attributes) for one in page)
                last = page[-1].user_id
        return data_frames.user_frame(found, names)

    def sequences(self) -> pd.DataFrame:
        """The sequences of the training window, one row a user or a session of nobody known.

        user_id, session_id (one of them is missing), length, first_at, last_at, and as arrays of that
        length, oldest event first: item_ids, event_types, timestamps (datetime64[us], UTC) and
        session_starts (bool; a session ends after `sequences.session_gap_minutes`). Ids merged into a
        user are that user's.
        """
        gap_seconds = self.settings.sequences.session_gap_minutes * 60
        frame = self._frame()
        return data_frames.sequence_frame(frame, build_sequences(frame, gap_seconds))

    def recommend(self, users: str | Iterable[str], k: int = 10) -> pd.DataFrame:
        """The `k` items that each of `users` would be answered now by the champion, best first; unlike an
        answer over REST it leaves no impression.

        user_id, rank (from 1), item_id, score (float; comparable within one user), source (the
        component that contributed most, or a fallback such as `popular`). A user of whom nothing is
        known gets the fallback. Raises NotEnoughDataError where no version was promoted yet,
        ModelFileError where none can be loaded; of more than 100,000 users InputError: that is for
        `recsys recommend --all`.
        """
        wanted, k = _users(users), _k(k)
        recommender, now_us = self._ready(), to_us(_now())
        seen = self.settings.serving.exclude_seen
        rows = []
        for user_id in wanted:
            asked = Request(user_id=user_id, k=k, exclude_seen=seen)
            answer = answering.recommend(recommender, asked, now_us)
            if answer.degraded is not None:
                raise StorageUnavailableError(answer.degraded)
            rows += [
                (user_id, one.rank, one.item_id, one.score, one.source) for one in answer.items
            ]
        return data_frames.recommendation_frame(rows)

    def similar(self, item_id: str, k: int = 10) -> pd.DataFrame:
        """The `k` items most similar to `item_id`: by the model, or what is popular in its category where
        the model does not know it.

        rank (from 1), item_id, title, score (a cosine where `source` is the network), source. Raises
        NotFoundError where neither model nor catalogue knows the item, and as `recommend`.
        """
        k = _k(k)
        lists = self._ready().item_lists
        return data_frames.ranked_frame(lists.similar(item_id, k, to_us(_now())))

    def evaluate(self, version: str | None = None) -> pd.DataFrame:
        """A `version` (default: the champion) beside every ranker and baseline: each ranks the whole
        catalogue at the same positions, on events that the version was not trained on.

        One row a ranking (the index), the best MRR first; `served` is the blend that answers. recall@20,
        mrr@20, ndcg@10, each with its 95% interval `_low` and `_high` (bootstrap over users),
        coverage@20 (share of the catalogue shown to anyone), positions (those with a target that
        training has seen), recall@20_all and mrr@20_all (unseen targets are misses). `attrs` tell
        version, positions, window_from and what the window is (note). Loads torch. Raises
        NotFoundError, NotEnoughDataError.
        """
        from recsys.pipeline import evaluate  # here: it loads torch

        done = evaluate(self.settings, self._database, _now(), version, self._frame())
        return data_frames.evaluation_frame(done)

    def plot_evaluation(self, report: pd.DataFrame, metric: str = "recall@20") -> Axes:
        """A bar for each ranking of a `report` by `evaluate()`, with the interval of `metric`: one of
        recall@20, mrr@20 and ndcg@10. Needs the extra `plot`, else raises MissingExtraError.
        """
        return plots.evaluation(report, metric)

    def plot_events(self, events: pd.DataFrame, every: str = "D") -> Axes:
        """The number of `events` of each type in `every` period, by pandas' names ('D' a day, 'h' an
        hour). Needs the extra `plot`, else raises MissingExtraError.
        """
        return plots.events(events, every)

    def _events_of(self, users: Iterable[str]) -> Iterator[pa.Table]:
        """The events of users by the index, a page at a time; each event once."""
        with self._database.connect() as connection:
            for user_id in users:
                before: int | None = None
                while True:
                    page = self._source.user_events(connection, user_id, PAGE_ROWS, before)
                    yield data_frames.table_of(page.events)
                    before = page.next_before
                    if before is None:
                        break

    def _frame(self) -> EventFrame:
        now_us = to_us(_now())
        return self._source.frame_since(now_us, window_start_us(self.settings, now_us))

    def _ready(self) -> Recommender:
        """What answers, with the model that is champion now and the events of a moment ago."""
        if self._recommender is None:
            self._recommender = Recommender(self.settings, self._database, time.monotonic)
        self._recommender.require_model()
        self._recommender.follow_once(to_us(_now()))
        return self._recommender


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(name: str, given: Moment | None) -> int | None:
    """Microseconds since 1970."""
    if given is None:
        return None
    expected = "expected a time such as 2025-03-01 or 2025-03-01T12:00Z"
    try:
        moment = pd.Timestamp(given)
    except (ValueError, TypeError, OverflowError):
        raise InputError(name, given, expected) from None
    if not isinstance(moment, datetime) or pd.isna(moment):
        raise InputError(name, given, expected)
    aware = moment.tz_localize(UTC) if moment.tzinfo is None else moment
    return to_us(aware.to_pydatetime(warn=False))


def _users(given: str | Iterable[str]) -> list[str]:
    """Ids of users, each once."""
    users = list(dict.fromkeys([given] if isinstance(given, str) else given))
    if len(users) > MAX_USERS:
        raise InputError("users", len(users), f"expected at most {MAX_USERS:,}")
    for one in users:
        if problem := stored_text_problem(one):
            raise InputError("users", one, problem)
    return users


def _k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise InputError("k", k, f"expected 1 to {MAX_K:,}")
    return k
