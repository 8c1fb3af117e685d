"""Which of the gateway's addresses a packet carries as its source (Linux: inet_select_addr; RFC 6724, ipv6_dev_get_saddr).

Not compiled: results are asked once per decision or per packet of the gateway's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet import Address, Device
from userfw.router.base import Router
from userfw.router.const import SCOPE_HOST, SCOPE_LINK, SCOPE_SITE, SCOPE_UNIVERSE


def select_ipv4(router: Router, device: Device | None, target: int = 0, scope: int = SCOPE_UNIVERSE) -> int:
    """A primary address of `device` in the subnet of `target`, else its first, else one of another device; 0 if there is none."""
    if device is not None:
        first = 0
        for address in device.addresses:
            if address.family != NFPROTO_IPV4 or address.secondary or address.scope > scope:
                continue
            if not target or _covers(address, target):
                return int(address.lo)
            first = first or int(address.lo)
        if first:
            return first
    for other in sorted(router.devices.values(), key=_index):
        for address in other.addresses:
            if (
                address.family == NFPROTO_IPV4
                and not address.secondary
                and address.scope <= scope
                and address.scope != SCOPE_LINK
            ):
                return int(address.lo)
    return 0


def _index(device: Device) -> int:
    return int(device.index)


def _covers(address: Address, target: int) -> bool:
    shift = 32 - address.prefixlen
    return bool(address.lo >> shift == target >> shift)


def scope_ipv6(hi: int, lo: int) -> int:
    """Scope of an address for RFC 6724: host, link, site or universe."""
    if hi >> 56 == 0xFF:
        nibble = (hi >> 48) & 15
        if nibble <= 1:
            return SCOPE_HOST
        return SCOPE_LINK if nibble == 2 else SCOPE_SITE if nibble <= 5 else SCOPE_UNIVERSE
    if hi == 0 and lo == 1:
        return SCOPE_HOST
    if hi >> 54 == 0x3FA:
        return SCOPE_LINK
    if hi >> 54 == 0x3FB:
        return SCOPE_SITE
    return SCOPE_UNIVERSE


def label_ipv6(hi: int, lo: int) -> int:
    """The default policy table's label (RFC 6724 2.1; Linux: addrlabel.c)."""
    if hi == 0 and lo == 1:
        return 0
    if hi == 0 and lo >> 32 == 0xFFFF:
        return 4
    if hi == 0 and lo >> 32 == 0:
        return 3
    if hi >> 48 == 0x2002:
        return 2
    if hi >> 32 == 0x20010000:
        return 5
    if hi >> 57 == 0x7E:
        return 13
    if hi >> 54 == 0x3FB:
        return 11
    if hi >> 48 == 0x3FFE:
        return 12
    return 1


def select_ipv6(router: Router, device: Device | None, hi: int, lo: int) -> tuple[int, int] | None:
    """The best source for a destination that leaves by `device` (RFC 6724 5, rules 1, 2, 3, 5, 6 and 8), or None."""
    wanted = scope_ipv6(hi, lo)
    candidates: Iterable[Device] = router.devices.values()
    if device is not None and wanted in (SCOPE_LINK, SCOPE_HOST):
        candidates = (device,)
    best: tuple[tuple[int, ...], tuple[int, int]] | None = None
    for other in candidates:
        for address in other.addresses:
            if address.family != NFPROTO_IPV6:
                continue
            score = _score(address, other is device, wanted, hi, lo)
            if best is None or score > best[0]:
                best = (score, (int(address.hi), int(address.lo)))
    return best[1] if best is not None else None


def _score(address: Address, outgoing: bool, wanted: int, hi: int, lo: int) -> tuple[int, ...]:
    scope = scope_ipv6(address.hi, address.lo)
    # the smallest scope that is wide enough is best; too narrow is worse than any (rule 2)
    breadth = scope if scope <= wanted else -scope
    common = 128 - (((address.hi ^ hi) << 64) | (address.lo ^ lo)).bit_length()
    return (
        int(address.hi == hi and address.lo == lo),
        breadth,
        int(not address.deprecated),
        int(outgoing),
        int(label_ipv6(address.hi, address.lo) == label_ipv6(hi, lo)),
        min(common, address.prefixlen),
    )
