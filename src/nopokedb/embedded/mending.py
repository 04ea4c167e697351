"""Putting one wrong byte right by a CRC-32C that was stored elsewhere.

A cyclic checksum is linear: the checksum of the damaged bytes differs from the right one by something that depends
only on the error and its distance from the end. Walking that difference back byte by byte shows every place where a
single changed byte would explain it. A second, independent condition has to hold too (`accept`): in n bytes about
n * 255 / 2**32 random damages would look like a single changed byte.
"""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c

_POLYNOMIAL = 0x82F63B78
MAX_BYTES = 32 * 2**20
"""Longer content is not searched: a second per few MiB."""


def _tables() -> tuple[list[int], list[int]]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    by_top = [0] * 256
    for at, value in enumerate(table):
        by_top[value >> 24] = at
    return table, by_top


_TABLE, _BY_TOP = _tables()
_ERROR_OF = {value: at for at, value in enumerate(_TABLE) if at}


def mend_one_byte(
    data: bytes, crc32c: int, accept: Callable[[bytes], bool] = lambda mended: True
) -> tuple[bytes, int] | None:
    """The bytes with one changed so that they match the checksum and `accept`, and where; None where no single
    byte explains the difference, or more than one could."""
    if len(data) > MAX_BYTES:
        return None
    difference = google_crc32c.value(data) ^ crc32c
    found: list[tuple[bytes, int]] = []
    for at in range(len(data) - 1, -1, -1):
        error = _ERROR_OF.get(difference)
        if error is not None:
            mended = data[:at] + bytes([data[at] ^ error]) + data[at + 1 :]
            if google_crc32c.value(mended) == crc32c and accept(mended):
                found.append((mended, at))
        index = _BY_TOP[difference >> 24]
        difference = (((difference ^ _TABLE[index]) << 8) & 0xFFFFFFFF) | index
    return found[0] if len(found) == 1 else None
