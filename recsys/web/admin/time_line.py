"""A visitor's events as visits: groups of events with the gaps between them, and a strip of marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from recsys.storage.dashboard.visitor_views import TimeLineEvent

SHAPES = ("circle", "square", "diamond", "triangle", "hexagon", "cross")
USUAL = {  # types that shops use keep their shape on every page
    "view": "circle",
    "click": "circle",
    "cart": "square",
    "addtocart": "square",
    "add_to_cart": "square",
    "purchase": "diamond",
    "transaction": "diamond",
    "like": "triangle",
    "favorite": "triangle",
    "rating": "triangle",
}
STEP, HEIGHT, BETWEEN = 15, 34, 22  # of the strip, in its own units
CORNERS = {
    "diamond": "0,-6 6,0 0,6 -6,0",
    "triangle": "0,-5.5 5.5,4.5 -5.5,4.5",
    "hexagon": "-3,-5 3,-5 6,0 3,5 -3,5 -6,0",
    "cross": "-2,-5.5 2,-5.5 2,-2 5.5,-2 5.5,2 2,2 2,5.5 -2,5.5 -2,2 -5.5,2 -5.5,-2 -2,-2",
}


@dataclass(frozen=True)
class Moment:
    """One event, and how long after the one before it (None: the first shown)."""

    event: TimeLineEvent
    gap_seconds: float | None


@dataclass(frozen=True)
class Visit:
    """Events without a long gap, in the order they happened."""

    moments: list[Moment]
    gap_seconds: float | None  # since the visit before; None where none is shown

    @property
    def start_us(self) -> int:
        return self.moments[0].event.timestamp_us

    @property
    def seconds(self) -> float:
        return (self.moments[-1].event.timestamp_us - self.start_us) / 1e6


def visits(events: Sequence[TimeLineEvent], session_gap_seconds: float) -> list[Visit]:
    """`events`, oldest first, as visits, oldest first: the rule that training groups them by."""
    found: list[Visit] = []
    before: TimeLineEvent | None = None
    for event in events:
        gap = None if before is None else (event.timestamp_us - before.timestamp_us) / 1e6
        begins = (
            before is None
            or gap is None
            or gap > session_gap_seconds
            or event.session_id != before.session_id
        )
        if begins:
            found.append(Visit([Moment(event, gap)], gap))
        else:
            found[-1].moments.append(Moment(event, gap))
        before = event
    return found


def shapes(event_types: Sequence[str]) -> dict[str, str]:
    """A shape for each type; those without a usual one take what is left, in order of their names.

    >>> shapes(["purchase", "view", "share"])
    {'purchase': 'diamond', 'view': 'circle', 'share': 'square'}
    """
    given = {name: USUAL[name] for name in event_types if name in USUAL}
    free = [shape for shape in SHAPES if shape not in given.values()] or [SHAPES[-1]]
    others = sorted({name for name in event_types if name not in USUAL})
    given.update({name: free[at % len(free)] for at, name in enumerate(others)})
    return given


def mark(shape: str) -> Markup:
    """The mark of an event type, drawn around (0, 0)."""
    css = SHAPES.index(shape) + 1
    if shape == "circle":
        return Markup('<circle class="mark mark-{}" r="5"/>').format(css)
    if shape == "square":
        return Markup(
            '<rect class="mark mark-{}" x="-5" y="-5" width="10" height="10" rx="1.5"/>'
        ).format(css)
    return Markup('<polygon class="mark mark-{}" points="{}"/>').format(css, CORNERS[shape])


def badge(shape: str) -> Markup:
    """The mark by itself, as large as a line of text."""
    return Markup(
        '<svg class="event-mark" viewBox="-8 -8 16 16" aria-hidden="true" focusable="false">{}</svg>'
    ).format(mark(shape))


def strip(found: Sequence[Visit], shape_of: Mapping[str, str], names: Mapping[str, str]) -> Markup:
    """All visits in one row, oldest at the left; `names`: item id -> title."""
    x, parts = 12.0, []
    places = []
    for at, visit in enumerate(found):
        if at:
            x += BETWEEN
        first = x
        for moment in visit.moments:
            kind = moment.event.event_type
            item_id = moment.event.item_id
            parts.append(
                Markup('<g transform="translate({},17)"><title>{}: {}</title>{}</g>').format(
                    f"{x:g}", kind, names.get(item_id, item_id), mark(shape_of[kind])
                )
            )
            x += STEP
        places.append((first, x - STEP))
    lines = [
        Markup('<rect class="visit" x="{}" y="5" width="{}" height="24" rx="12"/>').format(
            f"{first - 11:g}", f"{last - first + 22:g}"
        )
        for first, last in places
    ]
    gaps = [
        Markup('<line class="gap" x1="{}" x2="{}" y1="17" y2="17"/>').format(
            f"{one[1] + 12:g}", f"{other[0] - 12:g}"
        )
        for one, other in pairwise(places)
    ]
    width = max(x - STEP + 12, 24)
    count = sum(len(visit.moments) for visit in found)
    return Markup(
        '<svg class="strip" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="{label}">{parts}</svg>'
    ).format(
        w=f"{width:g}",
        h=HEIGHT,
        label=f"{_many(count, 'event')} in {_many(len(found), 'visit')}, oldest at the left",
        parts=Markup("").join([*lines, *gaps, *parts]),
    )


def _many(number: int, thing: str) -> str:
    """
    >>> _many(1, "visit"), _many(1_200, "event")
    ('1 visit', '1,200 events')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
