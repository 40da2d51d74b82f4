"""Partitions are dealt out evenly, and alike by everyone who knows the same."""

from hypothesis import given
from hypothesis import strategies as st

from recsys.consume.shares import deal
from recsys.ingest.streams.broker import Partition

TOPICS = st.sampled_from("abc")
PARTITIONS = st.sets(st.builds(Partition, TOPICS, st.integers(0, 9)), max_size=20)
NAMES = st.text("xyz", min_size=1, max_size=3)


@given(PARTITIONS, st.dictionaries(NAMES, st.just("abc"), min_size=1, max_size=5))
def test_consumers_of_the_same_topics_differ_by_one_at_most(partitions, consumers):
    dealt = deal(partitions, consumers)
    assert set(dealt) == partitions
    held = [list(dealt.values()).count(name) for name in consumers]
    assert max(held) - min(held) <= 1


@given(PARTITIONS, st.dictionaries(NAMES, st.sets(TOPICS), max_size=5))
def test_a_partition_falls_to_one_who_reads_its_topic(partitions, consumers):
    dealt = deal(partitions, consumers)
    assert dealt == deal(sorted(partitions, reverse=True), dict(reversed(consumers.items())))
    for one in partitions:
        able = {name for name, topics in consumers.items() if one.topic in topics}
        assert dealt.get(one) in able if able else one not in dealt
