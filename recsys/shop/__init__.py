"""A shop's data and its models as DataFrames: what `recsys.open` gives."""

from recsys.shop.shop import Shop

__all__ = ["Shop"]
