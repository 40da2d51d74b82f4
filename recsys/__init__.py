"""Order-aware recommendation from clickstreams. Start reading at `recsys.pipeline`.

In a notebook, `recsys.open("config.toml")` gives events, items, recommendations and the evaluation as
DataFrames; see `recsys.shop`.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.config import Settings
    from recsys.shop import Shop

__version__ = "0.2.0"


def open(config: str | PathLike[str] | Settings | None = None) -> Shop:
    """The shop that a configuration describes, to be looked into from Python; nothing connects yet.

    `config`: a file, or settings as `recsys.config.load_settings` gives them. Without it the file that
    commands read: $RECSYS_CONFIG, else ./config.toml if it exists. Variables RECSYS_<SECTION>__<KEY>
    override a file. Raises ConfigError naming the key that is wrong.

    >>> shop = open()
    >>> shop.close()
    """
    from recsys.shop import Shop  # here: it loads pandas, which `import recsys` needs not

    return Shop(config)
