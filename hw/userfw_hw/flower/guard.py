"""eBPF before flower, in software only: passes up what the contract keeps from devices and flower cannot tell apart.

- the first guard: broadcast and multicast frames, IPv4 options, IPv6 extension headers, TTL or hop limit 1, more than two tags;
- the second, before translated flows: large sends. pedit changes addresses beneath a checksum that is still to be completed and
  act_csum leaves large sends alone, so their segments would carry wrong checksums (Linux: act_csum.c, tcf_csum_ipv4_tcp).

"Up" is what the capture does with everything: out of its TAP device, to userfw. The rest goes on to the next filter.
"""

from __future__ import annotations

import sys

from userfw.ports.assembler import R0, R1, R2, R3, R6, R7, R8, Program

_REDIRECT, _PULL = 23, 39
_LONGEST = 14 + 4 + 40
_NETWORK = ((b"\x08\x00", "ipv4"), (b"\x86\xdd", "ipv6"))


def doubtful(capture: int) -> bytes:
    """The first guard; `capture` is the number of the TAP device."""
    p = Program()
    p.mov(R6, R1)
    p.load(4, R2, R6, 4)  # pkt_type
    p.branch("jeq", R2, 0, "unicast")
    p.branch("jne", R2, 3, "up")  # PACKET_OTHERHOST: a bridge's frame on its port, perhaps; filters compare the address
    p.label("unicast")
    p.load(4, R2, R6, 0)  # len
    p.branch("jlt", R2, 42, "up")
    p.branch("jle", R2, _LONGEST, "pull")
    p.set(R2, _LONGEST)
    p.label("pull")
    p.mov(R1, R6)
    p.call(_PULL)
    p.load(4, R7, R6, 76)
    p.load(4, R8, R6, 80)
    _by_kind(p, *_NETWORK, (b"\x81\x00", "tag"), (b"\x88\xa8", "tag"))
    _up(p, capture)
    p.label("tag")  # the outer tag is beside the frame, so this is the inner one
    p.alu("add", R7, 4)
    _by_kind(p, *_NETWORK)
    p.jump("up")
    p.label("ipv4")
    p.load(1, R3, R7, 14)
    p.branch("jne", R3, 0x45, "up")
    p.load(1, R3, R7, 22)
    p.branch("jle", R3, 1, "up")
    p.jump("on")
    p.label("ipv6")
    p.load(1, R3, R7, 21)
    p.branch("jle", R3, 1, "up")
    p.load(1, R3, R7, 20)
    p.branch("jeq", R3, 6, "on")
    p.branch("jne", R3, 17, "up")
    _on(p)
    return p.assemble()


def large(capture: int) -> bytes:
    """The second guard."""
    p = Program()
    p.load(4, R2, R1, 176)  # gso_size
    p.branch("jeq", R2, 0, "on")
    _up(p, capture)
    _on(p)
    return p.assemble()


def _by_kind(p: Program, *places: tuple[bytes, str]) -> None:
    """Go on by the EtherType 12 bytes behind R7."""
    _reach(p, 34)
    p.load(2, R3, R7, 12)
    for kind, name in places:
        p.branch("jeq", R3, int.from_bytes(kind, sys.byteorder), name)


def _reach(p: Program, size: int) -> None:
    p.mov(R2, R7)
    p.alu("add", R2, size)
    p.branch("jgt", R2, R8, "up", register=True)


def _up(p: Program, capture: int) -> None:
    p.label("up")
    p.set(R1, capture)
    p.set(R2, 0)
    p.call(_REDIRECT)
    p.exit()


def _on(p: Program) -> None:
    p.label("on")
    p.set(R0, -1)  # TC_ACT_UNSPEC: the next filter
    p.exit()
