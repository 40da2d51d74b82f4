"""Write docs/python.md from the docstrings of `recsys.open` and `Shop`: python tools/python_page.py

A test holds the page against them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recsys
from recsys.shop import Shop

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
HEAD = """\
# From Python

For notebooks: what a shop has and what its models say, as pandas DataFrames. Nothing is ever written. A notebook
that goes from a table to a decision, with its outputs: [examples/explore.ipynb](../examples/explore.ipynb).

```python
import recsys

with recsys.open("config.toml") as shop:
    clicks = shop.events(since="2025-03-01")
    shop.recommend(clicks["user_id"].dropna().unique()[:100], k=5)
    shop.evaluate()[["recall@20", "mrr@20", "positions"]]
```

This page is made of the docstrings (`python tools/python_page.py`). Every error is a `recsys.errors.RecsysError` whose
text is one readable line.
"""


def page() -> str:
    """The whole page."""
    methods = [
        value
        for name, value in vars(Shop).items()
        if inspect.isfunction(value) and not name.startswith("_")
    ]
    parts = [HEAD, _section("recsys.open", recsys.open), f"## recsys.Shop\n\n{_text(Shop)}\n"]
    parts += [_section(f"shop.{method.__name__}", method, "###") for method in methods]
    return "\n".join(parts)


def _section(name: str, what: Callable[..., Any], level: str = "##") -> str:
    return f"{level} {name}\n\n```python\n{name}{_signature(what)}\n```\n\n{_text(what)}\n"


def _signature(what: Callable[..., Any]) -> str:
    """The parameters as they are written, without `self`."""
    signature = inspect.signature(what)
    kept = [one for one in signature.parameters.values() if one.name != "self"]
    text = str(signature.replace(parameters=kept))
    return re.sub(r"'([^']*)'(?=[,)\s=]|$)", r"\1", text)


def _text(what: object) -> str:
    text = inspect.getdoc(what) or ""
    return re.sub(r"((?:^>>> .*\n?|^\.\.\. .*\n?)+)", r"```python\n\1\n```", text, flags=re.M)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
