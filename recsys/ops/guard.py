"""Whether a champion may stay: what people do with its answers, beside the control arm's.

The gate judges by the past; this judges by what happens. It looks every few minutes, so its bound is
stricter than a single look's: Z of 3.29 is one false alarm in a thousand looks that were independent,
and these, which see mostly the same answers again, are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.serving.uplift import uplift

STRICT_Z = 3.290527


def verdict_in_service(
    hourly: Sequence[Mapping[str, Any]],
    empty: int,
    min_answers: int,
    max_empty: float,
) -> str | None:
    """Why the champion should go, or None.

    hourly: rows of hour_us, arm ('champion', 'control'), shown (answers) and clicks; empty: answers of
    the champion that held no item.
    """
    answers = {"champion": 0, "control": 0}
    for row in hourly:
        if row["arm"] in answers:
            answers[row["arm"]] += row["shown"]
    if answers["champion"] >= min_answers and empty / answers["champion"] > max_empty:
        share = empty / answers["champion"]
        return (
            f"{share:.1%} of {answers['champion']:,} answers were empty, more than {max_empty:.1%}"
        )
    if min(answers.values()) < min_answers:
        return None
    found = uplift(hourly, STRICT_Z)
    if found is None or found["high"] >= 0:
        return None
    return (
        f"click-through minus the control arm's is {found['difference']:+.4f} "
        f"({found['low']:+.4f} to {found['high']:+.4f}) over {answers['champion']:,} and "
        f"{answers['control']:,} answers of the same hours"
    )
