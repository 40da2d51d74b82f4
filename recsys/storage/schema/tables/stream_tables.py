"""How far each partition of a stream has been read, and who reads it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text, text

from recsys.storage.schema.tables.table_types import Micros, metadata


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


# A partition's position moves in the transaction that stores its events; `token` grows with each
# consumer that takes it, so that a former one can no longer move it.
stream_partitions = Table(
    "stream_partitions",
    metadata,
    Column("source", Text, primary_key=True),  # the broker's name
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column(
        "position", Text
    ),  # where reading goes on, as the broker's reader writes it; null: nowhere yet
    Column("consumer", Text),  # who reads it; null: nobody
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    _count("messages"),  # read so far
    _count("read"),  # rows in them: accepted + duplicates + rejected + left_out
    _count("accepted"),
    _count("duplicates"),
    _count("rejected"),
    _count("left_out"),
    _count("missed"),  # messages that the broker had deleted before they were read
    Column("lag", BigInteger),  # messages behind, when it was last looked; null: unknown
    Column("last_message_at_us", Micros),  # the broker's time of the newest message read
    Column("reported_at_us", Micros),  # when its consumer last wrote this row
    Column("problem", Text),  # why it is not read; null: it is
)

# The consumers that run. One whose beats stand still for a lease's life is gone: recsys.consume.shares.
stream_consumers = Table(
    "stream_consumers",
    metadata,
    Column("source", Text, primary_key=True),
    Column("consumer", Text, primary_key=True),
    Column("topics", Text, nullable=False),  # a JSON list
    _count("beats"),
    Column("joined_at_us", Micros, nullable=False),
    Column("renewed_at_us", Micros, nullable=False),
    Column("problem", Text),  # what keeps it from reading; null: nothing
)
