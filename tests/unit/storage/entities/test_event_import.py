"""What an import of several files comes to."""

from recsys.storage.entities.event_import import ImportSummary

FIRST = ImportSummary(3, 2, 1, 0, 0, 0, 0.5, {"trimmed": 1}, import_id=7)
SECOND = ImportSummary(2, 1, 0, 0, 1, 0, 0.25, {"trimmed": 2}, import_id=8)


def test_one_file_keeps_its_id_and_several_are_summed():
    assert ImportSummary.of([FIRST]) == FIRST
    summed = ImportSummary(5, 3, 1, 0, 1, 0, 0.75, {"trimmed": 3}, import_id=None)
    assert ImportSummary.of([FIRST, SECOND]) == summed
