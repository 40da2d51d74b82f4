"""Positions of a list: pins first, then at least so many of what is promoted, then the ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from recsys.serving.answers import Candidate

PINNED, PROMOTED = "pinned", "promoted"  # sources


@dataclass(frozen=True)
class Promotion:
    """What has at least `share` of the positions, from the first on."""

    share: float
    meets: Callable[[str], bool]
    best_first: Iterator[Candidate]  # read only where the ranking gives too few


def place(
    ranked: Iterator[Candidate],
    k: int,
    pins: Mapping[int, str],
    promotion: Promotion | None,
    admits: Callable[[str], bool],
) -> list[Candidate]:
    """The k of a list in their order; fewer where there are no more.

    `pins`: item ids by position, from 1. Of any first p positions at least floor(share * p) show what is
    promoted, as far as there is any; what the ranking has there anyway counts. `admits` is asked once of
    each item that would be shown, in the order of the list.

    >>> ranked = [Candidate(name, 1.0, "lstm") for name in "abcd"]
    >>> [one.item_id for one in place(iter(ranked), 3, {2: "z"}, None, lambda item_id: True)]
    ['a', 'z', 'b']
    """
    taken = set(pins.values())
    chosen: list[Candidate] = []
    promoted = 0

    def following(candidates: Iterator[Candidate]) -> Candidate | None:
        for one in candidates:
            if one.item_id not in taken and admits(one.item_id):
                taken.add(one.item_id)
                return one
        return None

    for position in range(1, k + 1):
        pin, found = pins.get(position), None
        if pin is not None and admits(pin):
            found = Candidate(pin, 0.0, PINNED)
        elif promotion is not None and promoted < int(promotion.share * position + 1e-9):
            raised = following(promotion.best_first)
            found = None if raised is None else raised._replace(source=PROMOTED)
        found = found or following(ranked)
        if found is None:
            continue  # a pin may stand further down
        if promotion is not None and promotion.meets(found.item_id):
            promoted += 1
        chosen.append(found)
    return chosen
