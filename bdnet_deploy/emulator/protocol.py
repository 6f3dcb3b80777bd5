"""How the package and its emulator process talk: frames of a JSON header and raw bytes over two pipes.

A frame is the header's length (4 bytes, little-endian), the payload's length (8 bytes), the header as UTF-8 JSON, and the payload.
Nothing in it can run code.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_LENGTHS = struct.Struct("<IQ")


def send(stream: IO[bytes], header: dict[str, Any], payload: bytes | bytearray | memoryview = b"") -> None:
    """Writes one frame."""
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    stream.write(_LENGTHS.pack(len(text), len(payload)) + text)
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Reads one frame.

    Raises:
        EOFError: the other side is gone.
    """
    text_length, payload_length = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    header: dict[str, Any] = json.loads(_exactly(stream, text_length).decode("utf-8"))
    return header, _exactly(stream, payload_length)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)  # a buffered pipe reads until count or end of file
    if len(data) != count:
        raise EOFError
    return data
