"""Sends 60-byte UDP frames as fast as a packet socket takes them: `python -m bench.generator DEVICE FRAME-HEX COUNT UNIQUE`.

FRAME-HEX is an Ethernet frame with IPv4 and UDP; COUNT 0 is until the process is stopped. UNIQUE 0: one flow, its IPv4
identification counting up as a connected socket has it. UNIQUE 1 gives every frame a source (last byte 10 to 209) and a
source port of its own, all to one destination: behind one address the 200 sources of a port contend for it. UNIQUE 2 gives
each source a destination port of its own as well, so that every mapping keeps its port. Frames go out by sendmmsg(2) in
blocks, past the queue discipline.
"""

import ctypes
import itertools
import socket
import struct
import sys

BLOCK = 512
_SOL_PACKET, _QDISC_BYPASS = 263, 20
_HEADER = struct.Struct("@PIPNPNi4xI4x")  # struct mmsghdr on 64-bit Linux


def variant(frame: bytes, number: int, unique: int) -> bytes:
    """The frame with source address and ports number `number` and right IPv4 checksum, no UDP checksum."""
    data = bytearray(frame)
    if not unique:
        data[18:20] = (number & 0xFFFF).to_bytes(2, "big")
        return checksummed(data)
    data[29] = 10 + number % 200
    data[34:36] = (1024 + number // 200 % 64000).to_bytes(2, "big")
    if unique == 2:
        data[36:38] = (9 + number % 200).to_bytes(2, "big")
    data[40:42] = b"\0\0"
    return checksummed(data)


def checksummed(data: bytearray) -> bytes:
    """The frame with a right IPv4 header checksum."""
    data[24:26] = b"\0\0"
    total = sum(struct.unpack("!10H", data[14:34]))
    total = (total & 0xFFFF) + (total >> 16)
    data[24:26] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def main(device: str, text: str, count: int, unique: int) -> None:
    """Send `count` frames (0: for ever)."""
    frame = bytes.fromhex(text)
    kinds = count if unique else BLOCK
    store = ctypes.create_string_buffer(b"".join(variant(frame, n, unique) for n in range(kinds)))
    base, size = ctypes.addressof(store), len(frame)
    vectors = ctypes.create_string_buffer(b"".join(struct.pack("@PN", base + n * size, size) for n in range(kinds)))
    at = ctypes.addressof(vectors)
    headers = ctypes.create_string_buffer(b"".join(_HEADER.pack(0, 0, at + n * 16, 1, 0, 0, 0, 0) for n in range(kinds)))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
    sock.bind((device, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    start, each = ctypes.addressof(headers), _HEADER.size
    done = 0
    for _ in itertools.count():
        place = done % kinds
        sent = libc.sendmmsg(sock.fileno(), ctypes.c_void_p(start + place * each), min(BLOCK, kinds - place), 0)
        if sent < 0 and ctypes.get_errno() not in (11, 105):
            raise OSError(ctypes.get_errno(), "sendmmsg")
        done += max(sent, 0)
        if count and done >= count:
            break


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
