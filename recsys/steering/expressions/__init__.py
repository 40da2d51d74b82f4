"""Expressions of filters, boosts and scores: a subset of CEL, evaluated over columns of items.

text -> `grammar` -> `tree` -> `kind_rules` -> `expression` -> `evaluation` over `columns`.
"""

MAX_LENGTH = 2_000  # characters of an expression
