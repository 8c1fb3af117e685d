"""Bulk work on packet buffers: sums and copies of up to 64 KB, the two places where an index check per byte would cost.

Laws: each function checks the whole range against the buffers' lengths once and raises IndexError; only then does it take a
raw pointer, which never outlives the call. The interpreter lock is held throughout, so no buffer can be resized meanwhile.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import U32_MASK

    PyByteArray_AS_STRING: Any = None
    memcpy: Any = None


def add_words(total: cython.uint, data: bytearray, off: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.uint:
    """`total` plus the 16-bit network-order words of `data[off:off+length]`, as `wire.checksum.add_bytes`, but for long ranges.

    One's complement sums do not depend on byte order (RFC 1071, 2.B): words are added as the machine has them, eight bytes
    at a time, and the folded result is swapped once.
    """
    if off < 0 or length < 0 or off + length > len(data):
        raise IndexError("sum beyond the buffer")
    if not cython.compiled:
        part = bytes(data[off : off + length])
        return _fold16(total + int.from_bytes(part + b"\0" * (length & 1), "big"))
    p: cython.p_char = PyByteArray_AS_STRING(data) + off
    low: cython.ulonglong = U32_MASK
    acc: cython.ulonglong = 0
    word: cython.ulonglong = 0
    other: cython.ulonglong = 0
    i: cython.Py_ssize_t = 0
    while i + 16 <= length:
        memcpy(cython.address(word), p + i, 8)
        memcpy(cython.address(other), p + i + 8, 8)
        acc += (word & low) + (word >> 32) + (other & low) + (other >> 32)
        i += 16
    while i + 8 <= length:
        memcpy(cython.address(word), p + i, 8)
        acc += (word & low) + (word >> 32)
        i += 8
    if i < length:
        word = 0
        memcpy(cython.address(word), p + i, length - i)
        acc += (word & low) + (word >> 32)
    acc = (acc & low) + (acc >> 32)
    acc = (acc & 0xFFFF) + ((acc >> 16) & 0xFFFF) + (acc >> 32)
    acc = (acc & 0xFFFF) + (acc >> 16)
    acc = (acc & 0xFFFF) + (acc >> 16)
    one: cython.ushort = 1
    probe: cython.uchar = 0
    memcpy(cython.address(probe), cython.address(one), 1)
    if probe:
        acc = ((acc & 0xFF) << 8) | (acc >> 8)
    acc += total
    return (acc & 0xFFFF) + ((acc >> 16) & 0xFFFF) + (acc >> 32)


def _fold16(total: int) -> int:
    return total % 0xFFFF or 0xFFFF if total else 0


def copy(
    to: bytearray, to_off: cython.Py_ssize_t, source: bytearray, off: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.int:
    """Copy `length` bytes between two different buffers; IndexError if either range does not fit."""
    if length < 0 or off < 0 or to_off < 0 or off + length > len(source) or to_off + length > len(to):
        raise IndexError("copy beyond the buffer")
    if not cython.compiled:
        to[to_off : to_off + length] = source[off : off + length]
        return 0
    memcpy(PyByteArray_AS_STRING(to) + to_off, PyByteArray_AS_STRING(source) + off, length)
    return 0
