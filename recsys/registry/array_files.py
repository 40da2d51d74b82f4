"""Arrays of a safetensors file, mapped: what processes of one machine share, and nobody reads whole."""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open

from recsys.errors import ModelFileError
from recsys.events.array_types import AnyArray

TYPES = {
    "BOOL": np.bool_,
    "I8": np.int8,
    "U8": np.uint8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "F32": np.float32,
    "F64": np.float64,
}


def mapped_arrays(path: Path) -> dict[str, AnyArray]:
    """The arrays of a safetensors file by name. They share the file's pages, which nothing writes to:
    what is written into an array stays with this process.

    Raises ModelFileError where it is not such a file.
    """
    try:
        with safe_open(path, "np"):  # its header and its length fit together
            pass
        with open(path, "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start = 8 + int.from_bytes(memory[:8], "little")
        header = orjson.loads(memory[8:start])
        header.pop("__metadata__", None)
        return {
            name: np.frombuffer(
                memory, TYPES[one["dtype"]], prod(one["shape"]), start + one["data_offsets"][0]
            ).reshape(one["shape"])
            for name, one in header.items()
        }
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        kind = type(error).__name__
        raise ModelFileError(f"{path.name} cannot be read ({kind})") from None
