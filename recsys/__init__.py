"""Order-aware recommendation from clickstreams. Start reading at `recsys.pipeline`."""

__version__ = "0.2.0"
