"""bench faults --only attacks: what attackers did to an earlier release, tried on any release.

Each attack has an installation of its own, and reaches it as an attacker would: over HTTP, by signals,
by files and by what an administrator types.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.drills.fault_files import inflated_file, open_files, texts_that_act
from bench.drills.fault_pages import (
    any_text_first,
    clicked_control,
    empty_answers,
    filled_memory,
    flood_before_training,
    flood_of_bytes,
    flood_of_events,
)
from bench.drills.fault_rights import erasure, races, restored_rights
from bench.drills.fault_service import (
    ended_workers,
    keyless_posts,
    late_bodies,
    log_in_crowd,
    no_files_left,
    odd_requests,
    rotating_address,
)
from bench.drills.fault_stage import Fault, own_postgres
from bench.drills.prepared_shop import with_two_versions
from bench.installations import Installation, install
from bench.releases import Release

ATTACKS: tuple[Callable[[Installation], Fault], ...] = (
    ended_workers,
    late_bodies,
    keyless_posts,
    filled_memory,
    log_in_crowd,
    rotating_address,
    clicked_control,
    empty_answers,
    any_text_first,
    flood_of_events,
    flood_of_bytes,
    flood_before_training,
    erasure,
    restored_rights,
    open_files,
    inflated_file,
    no_files_left,
    odd_requests,
    texts_that_act,
)


def attacks(release: Release) -> Iterator[Fault]:
    """Each attack on `release`; the races last, where PostgreSQL is installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = with_two_versions(install(release, folder / "prepared"))
        for number, attack in enumerate(ATTACKS):
            yield attack(prepared.copied(folder / str(number)))
        with own_postgres() as server:
            if server is not None:
                yield races(install(release, folder / "races", server.url))
