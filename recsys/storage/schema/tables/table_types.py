"""The metadata that all tables belong to, and the types of their columns."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Micros = BigInteger

# SQLite numbers rows by itself only in a column declared INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")

# Ordered by its bytes in both databases, whatever PostgreSQL's own order is.
BytewiseText = Text().with_variant(Text(collation="C"), "postgresql")


def row_number() -> Column[int]:
    return Column("id", RowNumber, Identity(), primary_key=True)
