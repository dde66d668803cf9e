"""Messages in the protobuf wire format, read by a schema, with no library for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_mono.errors import CheckpointError

Schema = Mapping[int, tuple[str, type, Any]]
"""By a field's number, its name, type (``list``: messages, any number of them) and default."""

_WIRES: dict[type, int] = {int: 0, str: 2, bytes: 2, list: 2, float: 5}
_SIZES = {1: 8, 5: 4}


def read_message(content: bytes, schema: Schema) -> dict[str, Any]:
    """The fields of a message by name; those that the schema does not know are passed over.

    Raises:
        CheckpointError: the message is cut short, or is something else.
    """
    found = {name: [] if kind is list else default for name, kind, default in schema.values()}
    for number, wire, value in _fields(content):
        if number not in schema:
            continue
        name, kind, _ = schema[number]
        if wire != _WIRES[kind]:
            raise CheckpointError(f"field {number} has another type: not this kind of file")
        if kind is list:
            found[name].append(value)
        elif kind is str:
            found[name] = value.decode("utf-8", "replace")
        elif kind is float:
            found[name] = struct.unpack("<f", value)[0]
        else:
            found[name] = value
    return found


def _fields(content: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value (an integer, or bytes) of each field."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(content, at)
        elif wire == 2 or wire in _SIZES:
            size, at = _varint(content, at) if wire == 2 else (_SIZES[wire], at)
            value, at = content[at : at + size], at + size
        else:
            raise CheckpointError(f"wire type {wire}: damaged, or not this kind of file")
        if at > len(content):
            raise CheckpointError("cut short: copy the file again")
        yield number, wire, value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(content):
            raise CheckpointError("cut short: copy the file again")
        byte = content[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise CheckpointError("an endless number: damaged, or not this kind of file")
