"""Sends prepared frames as fast as a packet socket takes them: sendmmsg(2) in blocks, past the queue discipline.

`python -m bench.blast DEVICE FRAME-HEX COUNT` sends a flood of COUNT kinds of TCP SYN, made from an Ethernet frame with IPv4 and
TCP: each has a source address (its last two bytes) and a source port of its own and right checksums. It sends them again and again
until it is stopped.
"""

import ctypes
import itertools
import socket
import struct
import sys
from collections.abc import Sequence

BLOCK = 512
_SOL_PACKET, _QDISC_BYPASS = 263, 20
_HEADER = struct.Struct("@PIPNPNi4xI4x")  # struct mmsghdr on 64-bit Linux


def folded(data: bytes, total: int = 0) -> int:
    """The Internet checksum of an even number of bytes, added to `total`."""
    total += sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(frame: bytes, number: int) -> bytes:
    """The SYN with a source and a source port by its number."""
    data = bytearray(frame)
    data[28:30] = (256 + number % 60000).to_bytes(2, "big")
    data[34:36] = (1024 + number // 60000 * 7 + number % 50000).to_bytes(2, "big")
    data[24:26] = data[50:52] = b"\0\0"
    data[24:26] = folded(bytes(data[14:34])).to_bytes(2, "big")
    data[50:52] = folded(bytes(data[26:]), 6 + len(data) - 34).to_bytes(2, "big")
    return bytes(data)


def send(device: str, frames: Sequence[bytes], count: int = 0) -> None:
    """Send the frames, all of one size, in turns: `count` of them, 0 is for ever."""
    size, kinds = len(frames[0]), len(frames)
    store = ctypes.create_string_buffer(b"".join(frames))
    base = ctypes.addressof(store)
    vectors = ctypes.create_string_buffer(b"".join(struct.pack("@PN", base + n * size, size) for n in range(kinds)))
    at = ctypes.addressof(vectors)
    headers = ctypes.create_string_buffer(b"".join(_HEADER.pack(0, 0, at + n * 16, 1, 0, 0, 0, 0) for n in range(kinds)))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
    sock.bind((device, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    start, done = ctypes.addressof(headers), 0
    for _ in itertools.count():
        place = done % kinds
        sent = libc.sendmmsg(sock.fileno(), ctypes.c_void_p(start + place * _HEADER.size), min(BLOCK, kinds - place), 0)
        if sent < 0 and ctypes.get_errno() not in (11, 105):
            raise OSError(ctypes.get_errno(), "sendmmsg")
        done += max(sent, 0)
        if count and done >= count:
            break


if __name__ == "__main__":
    send(sys.argv[1], [syn(bytes.fromhex(sys.argv[2]), n) for n in range(int(sys.argv[3]))])
