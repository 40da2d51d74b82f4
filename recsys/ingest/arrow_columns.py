"""Arrow columns of any type -> ids, numbers and text, whole columns at a time.

Legend: n rows. Masks are (n,) arrays of booleans.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.array_types import BoolArray, Float64Array, Int32Array, UInt8Array
from recsys.text_rules import MAX_ID_LENGTH

NOT_UTF8 = "is not UTF-8 text"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
# Whole numbers up to here are told apart by each float type.
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


def as_readable(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, BoolArray | None]:
    """`column` as one array that is neither dictionary-encoded nor binary.

    The mask (None where all is well) tells the cells that are not UTF-8; they are given with their
    bytes escaped.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = _uuid_text(column) if _is_uuid(column.type) else column.storage
    if pa.types.is_dictionary(column.type):
        return as_readable(column.dictionary_decode())
    if not any(is_kind(column.type) for is_kind in _TEXTS):
        return column, None
    try:
        # By way of bytes, so that text which only claims to be UTF-8 is looked at too.
        return pc.cast(pc.cast(column, pa.binary()), pa.string()), None
    except pa.ArrowInvalid:
        cells = pc.cast(column, pa.binary()).to_pylist()
        texts = [None if cell is None else cell.decode(errors="backslashreplace") for cell in cells]
        bad = np.array([not _is_utf8(cell) for cell in cells], np.bool_)
        return pa.array(texts, pa.string()), bad


def _is_utf8(cell: bytes | None) -> bool:
    try:
        (cell or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType)


def _uuid_text(column: pa.ExtensionArray) -> pa.Array:
    return pa.array([None if uuid is None else str(uuid) for uuid in column.to_pylist()])


def can_be_id(kind: pa.DataType) -> bool:
    """Whether a column of this (readable) type can hold ids."""
    return bool(
        pa.types.is_null(kind)
        or pa.types.is_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    )


can_be_number = can_be_id


def as_ids(column: pa.Array, limit: int = MAX_ID_LENGTH) -> tuple[pa.Array, BoolArray]:
    """Ids of 1 to `limit` characters: (text (n,), which are bad); null where missing or bad.

    Empty text and a numeric NaN are missing. Whole numbers become their digits, whatever their
    type; other numbers are bad.

    >>> texts, bad = as_ids(pa.array([12345.0, None, 1.5]))
    >>> texts.to_pylist(), bad.tolist()
    (['12345', None, None], [False, False, True])
    """
    texts, bad = _whole_texts(column)
    offsets, characters = text_bytes(texts)
    lengths = np.diff(offsets)
    unfit = np.zeros(len(texts), np.bool_)
    if len(lengths) and lengths.max() > limit:  # bytes, so a character may still count four times
        unfit |= _mask(pc.greater(pc.utf8_length(texts), limit))
    if (
        (characters < 32) | (characters == 127) | (characters == 0xC2)
    ).any():  # C2: C1 among others
        # FORBIDDEN_CHARACTERS, less the surrogates that valid UTF-8 cannot hold
        unfit |= _mask(pc.match_substring_regex(texts, r"[\x00-\x1f\x7f-\x{9f}]"))
    null = (lengths == 0) | unfit
    if null.any():
        texts = pc.if_else(pa.array(null), pa.scalar(None, pa.string()), texts)
    return texts, bad | unfit


def _whole_texts(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    """`column` as text with whole numbers as digits: (text, which are numbers but not whole)."""
    kind = column.type
    bad = np.zeros(len(column), np.bool_)
    if pa.types.is_string(kind):
        return column, bad
    if pa.types.is_floating(kind):
        values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        with np.errstate(invalid="ignore"):
            whole = (np.rint(values) == values) & (np.abs(values) <= _EXACT[kind])
        digits = np.where(whole, values, 0.0).astype(np.int64)
        return pc.cast(pa.array(digits, mask=~whole), pa.string()), ~whole & ~missing
    texts = pc.cast(column, pa.string())
    if pa.types.is_decimal(kind):
        texts = pc.replace_substring_regex(texts, r"\.0+$", "")
        bad = ~_mask(pc.match_substring_regex(texts, r"^-?[0-9]+$")) & ~_mask(pc.is_null(texts))
        texts = pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), texts)
    return texts, bad


def as_numbers(column: pa.Array) -> tuple[Float64Array, BoolArray, BoolArray]:
    """Numbers and numeric text as float64: (values (n,), which are missing, which are bad).

    A value is NaN where it is missing or bad. Infinite values are left to the caller.
    """
    if not pa.types.is_string(column.type):
        values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        return values, missing, np.zeros(len(values), np.bool_)
    offsets, characters = text_bytes(column)
    missing = (np.diff(offsets) == 0) | _mask(pc.is_null(column))
    texts = column
    if missing.any():
        texts = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), texts)
    bad = np.zeros(len(texts), np.bool_)
    if not _IN_NUMBERS[characters].all() or (values := _cast_numbers(texts)) is None:
        bad = ~_mask(pc.match_substring_regex(texts, NUMBER)) & ~missing
        texts = pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), texts)
        values = _cast_numbers(texts)
        assert values is not None
    return values, missing, bad


def _cast_numbers(texts: pa.Array) -> Float64Array | None:
    try:
        cast = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        return None
    values: Float64Array = cast.to_numpy(zero_copy_only=False)
    return values


def _byte_set(characters: bytes) -> BoolArray:
    known = np.zeros(256, np.bool_)
    known[list(characters)] = True
    return known


_IN_NUMBERS = _byte_set(b"0123456789+-.eE")


def as_text(column: pa.Array) -> pa.Array:
    """`column` as text for comparisons, '' where null; numbers and times as Arrow has them."""
    if pa.types.is_floating(column.type):
        values = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return pc.fill_null(pc.cast(values, pa.string()), "")
    return pc.fill_null(pc.cast(column, pa.string()), "")


def cell_value(cell: pa.Scalar) -> object:
    """The Python value of `cell`; its text where Python has none, as for the year 50,000."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return pc.cast(cell, pa.string()).as_py()


def text_bytes(texts: pa.Array) -> tuple[Int32Array, UInt8Array]:
    """The UTF-8 of a string array: (offsets (n + 1,) into bytes, bytes), free of any slicing."""
    _, offset_buffer, data_buffer = texts.buffers()
    if len(texts) == 0:
        return np.zeros(1, np.int32), np.empty(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def _mask(values: pa.Array) -> BoolArray:
    """Booleans as a mask; null is False."""
    mask: BoolArray = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask
