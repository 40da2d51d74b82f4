import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.events.frame import EventFrameBuilder, frame_from_table
from recsys.events.sequences import Histories, build_sequences
from recsys.events.time_split import cut_for_share, events_before, positions_from
from recsys.events.vocabulary import UNKNOWN, Vocabulary

SECOND = 1_000_000


def table(rows: list[tuple]) -> pa.Table:
    """Rows (user, session, item, type, second) as an event table."""
    users, sessions, items, types, seconds = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "session_id": pa.array(sessions, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "event_type": pa.array(types, pa.string()),
            "timestamp_us": pa.array([s * SECOND for s in seconds], pa.int64()),
        }
    )


def named(frame, sequences) -> dict[str, list[str]]:
    return {
        key: [frame.item_ids[code] for code in sequences[number]]
        for number, key in enumerate(sequences.keys)
    }


ROWS = [
    ("ann", "s1", "tea", "view", 10),
    (None, "7", "cup", "view", 5),
    ("ann", "s1", "cup", "view", 5),
    ("7", None, "pot", "buy", 1),
    ("ann", "s1", "pot", "view", 10),
    ("ann", "s1", "tea", "view", 10),
]


def test_a_user_and_a_session_of_the_same_name_are_two_sequences():
    frame = frame_from_table(table(ROWS))
    sequences = build_sequences(frame, 1800)
    assert named(frame, sequences) == {
        "u:ann": ["cup", "tea", "pot", "tea"],  # ties keep their source order, repeats stay
        "s:7": ["cup"],
        "u:7": ["pot"],
    }


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_shuffling_rows_that_keep_their_positions_changes_nothing(data):
    count = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    events = table(
        [
            (f"u{rng.integers(4)}", None, f"i{rng.integers(9)}", "view", int(rng.integers(6)))
            for _ in range(count)
        ]
    ).append_column("position", pa.array(np.arange(count)))
    shuffled = events.take(pa.array(rng.permutation(count)))

    def sequences(of: pa.Table):
        builder = EventFrameBuilder()
        for batch in of.to_batches(max_chunksize=7):
            builder.append(batch)
        frame = builder.build()
        return named(frame, build_sequences(frame, 1800))

    assert sequences(events) == sequences(shuffled)


def test_sessions_start_at_a_new_id_or_after_a_gap():
    rows = [
        ("ann", "a", "x", "view", 0),
        ("ann", "a", "x", "view", 60),
        ("ann", "b", "x", "view", 61),
        ("ann", "b", "x", "view", 61 + 1800),
        ("ann", "b", "x", "view", 61 + 1800 + 1801),
        ("bob", None, "x", "view", 0),
        ("bob", None, "x", "view", 10),
    ]
    sequences = build_sequences(frame_from_table(table(rows)), 1800)
    assert sequences.session_starts.tolist() == [True, False, True, False, True, True, False]


def test_no_event_at_or_after_the_cut_reaches_training():
    sequences = build_sequences(frame_from_table(table(ROWS)), 1800)
    train = events_before(sequences, 10 * SECOND)
    assert train.timestamps_us.max() < 10 * SECOND
    assert train.event_count == 3
    assert sorted(train.keys) == ["s:7", "u:7", "u:ann"]
    positions = positions_from(sequences, 10 * SECOND)
    assert len(positions) == 3  # tea, pot, tea of ann; the first event of nobody
    assert positions.returning.all()
    for number in range(len(positions)):
        history = positions.histories[number]
        assert len(history) == number + 1


def test_target_types_and_first_events():
    sequences = build_sequences(frame_from_table(table(ROWS)), 1800)
    assert len(positions_from(sequences, 0)) == 3
    assert (
        len(positions_from(sequences, 0, target_mask=sequences.event_types == 1)) == 0
    )  # pot was 7's first event


def test_sampling_takes_whole_sequences():
    rows = [(f"u{n % 50}", None, f"i{n % 7}", "view", n) for n in range(500)]
    positions = positions_from(build_sequences(frame_from_table(table(rows)), 1e9), 0)
    sample = positions.sample(100, np.random.default_rng(0))
    assert 81 <= len(sample) <= 100
    assert set(np.bincount(sample.owners)[np.unique(sample.owners)]) == {9}


def test_cut_for_share():
    rows = [("u", None, "i", "view", n) for n in range(100)]
    sequences = build_sequences(frame_from_table(table(rows)), 1e9)
    cut = cut_for_share(sequences, 0.1)
    assert (sequences.timestamps_us >= cut).sum() in (10, 11)


def test_recoding_keeps_the_place_of_unknown_items():
    frame = frame_from_table(table(ROWS))
    vocabulary = Vocabulary(["pot", "tea"])
    codes = vocabulary.encode(frame.item_ids)
    sequences = build_sequences(frame, 1800).recode(codes)
    assert sequences[0].tolist() == [UNKNOWN, 3, 2, 3]


def test_histories_from_lists():
    histories = Histories.from_lists([[2, 3], [], [4]])
    assert [h.tolist() for h in (histories[0], histories[1], histories[2])] == [[2, 3], [], [4]]
    assert histories.last(1)[0].tolist() == [3]
    assert histories.batch(1, 3)[1].tolist() == [4]


def test_an_empty_frame_gives_no_sequences():
    sequences = build_sequences(EventFrameBuilder().build(), 1800)
    assert len(sequences) == 0
    assert sequences.event_count == 0
