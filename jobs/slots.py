"""When the jobs are due: the only home of APScheduler.

Its triggers say when, in wall-clock times. How a cron line is read is settled in `jobs.crontab`:
APScheduler's own reading differs (Monday is its day 0, and a day of the month narrows a day of the
week), so that its triggers are made of lists of values which leave nothing to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from jobs.crontab import EVERY_DAY, EVERY_WEEKDAY, WEEKDAYS, Crontab
from recsys.config import Settings
from recsys.errors import ConfigError

PRUNE = "30 4 * * *"
LOOK_BACK = (timedelta(hours=2), timedelta(days=2), timedelta(days=40), timedelta(days=400))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_CHANGE = timedelta(hours=3)  # no zone's clocks change by more


@dataclass(frozen=True)
class Slots:
    """The times of one job. `zone` is None for times counted from the epoch."""

    line: str  # as people read it
    trigger: BaseTrigger
    zone: ZoneInfo | None = None
    fixed: bool = False  # hour and minute of a cron line are named

    def next(self, after: datetime) -> datetime | None:
        """The first slot that is later than `after`, in UTC.

        Cron times are found among the zone's wall-clock times, as if those were UTC, and then placed
        as Debian's cron does: a fixed time that the clocks skip comes right after the change, one that
        they repeat comes once; lines with `*` as hour or minute follow the clock as it goes. (The
        trigger's own way with zones leaves days out around a change of clocks.)
        """
        if self.zone is None:
            found = self.trigger.get_next_fire_time(None, after + timedelta(microseconds=1))
            return None if found is None else found.astimezone(UTC)
        wall = after.astimezone(self.zone).replace(tzinfo=UTC)
        if _clocks_change(after, self.zone):
            wall -= CLOCK_CHANGE
        best: datetime | None = None
        until: datetime | None = None  # later wall-clock times come later than `best`
        while (wall := self.trigger.get_next_fire_time(None, wall)) is not None:
            if until is not None and wall > until:
                break
            later = [one for one in _placed(wall, self.zone, self.fixed) if one > after]
            if later and (best is None or min(later) < best):
                best = min(later)
                if self.fixed or not _clocks_change(best, self.zone):
                    break
                until = until or wall + CLOCK_CHANGE
            wall += timedelta(seconds=1)
        return best

    def last(self, after: datetime, now: datetime) -> datetime | None:
        """The latest slot in (after, now], in UTC; None where there is none."""
        for span in LOOK_BACK:
            last: datetime | None = None
            due = self.next(max(after, now - span))
            while due is not None and due <= now:
                last, due = due, self.next(due)
            if last is not None or now - span <= after:
                return last
        return None


def _clocks_change(moment: datetime, zone: ZoneInfo) -> bool:
    """Whether the zone's clocks change within CLOCK_CHANGE of a moment."""
    before, behind = moment - CLOCK_CHANGE, moment + CLOCK_CHANGE
    return before.astimezone(zone).utcoffset() != behind.astimezone(zone).utcoffset()


def _placed(wall: datetime, zone: ZoneInfo, fixed: bool) -> list[datetime]:
    """When the zone's clocks show `wall`: once, or never, or twice; for a fixed time, once."""
    found = []
    for fold in (0, 1):
        shown = wall.replace(tzinfo=zone, fold=fold)
        moment = shown.astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=UTC) == wall:
            found.append(moment)
    if not fixed:
        return found
    while not found:  # skipped: the first minute that the clocks show again
        wall += timedelta(minutes=1)
        found = _placed(wall, zone, False)
    return found[:1]


def slots(settings: Settings) -> dict[str, Slots]:
    """The slots of each job. Raises ConfigError for a cron line that cannot be."""
    chosen = settings.schedule
    zone = ZoneInfo(chosen.timezone)
    # Counted from the epoch, so that every scheduler has the same slots.
    every = IntervalTrigger(minutes=chosen.refresh_minutes, start_date=EPOCH, timezone=UTC)
    found = {
        "retrain": _cron("schedule.retrain", chosen.retrain, zone),
        "refresh": Slots(f"every {chosen.refresh_minutes:g} min", every),
        "prune": _cron("schedule.prune", PRUNE, zone),
    }
    if chosen.tune:
        found["tune"] = _cron("schedule.tune", chosen.tune, zone)
    if chosen.backup:
        found["backup"] = _cron("schedule.backup", chosen.backup, zone)
    return found


def _cron(key: str, line: str, zone: ZoneInfo) -> Slots:
    try:
        crontab = Crontab.parse(line)
    except ValueError as error:
        raise ConfigError(
            key, line, f"expected five cron fields such as '0 3 * * *' ({error})"
        ) from None
    found = Slots(f"{line} {zone.key}", _trigger(crontab), zone, crontab.fixed)
    if found.next(datetime.now(UTC)) is None:
        raise ConfigError(key, line, "expected a time that ever comes")
    return found


def _trigger(crontab: Crontab) -> BaseTrigger:
    """The trigger of a line's wall-clock times, as if they were UTC."""
    if not crontab.either_day:
        return _on(crontab, crontab.days, crontab.weekdays)
    by_day = _on(crontab, crontab.days, EVERY_WEEKDAY)
    by_weekday = _on(crontab, EVERY_DAY, crontab.weekdays)
    return OrTrigger([by_day, by_weekday])


def _on(crontab: Crontab, days: frozenset[int], weekdays: frozenset[int]) -> CronTrigger:
    return CronTrigger(
        minute=_listed(crontab.minutes),
        hour=_listed(crontab.hours),
        day=_listed(days),
        month=_listed(crontab.months),
        day_of_week=",".join(WEEKDAYS[day] for day in sorted(weekdays)),
        second=0,
        timezone=UTC,
    )


def _listed(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))
