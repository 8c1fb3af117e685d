"""The forwarding information base: tables, rules, addresses, and the cache of decisions.

Laws: every change bumps one generation; a Dst of an older generation is never used. The cache is a fixed number of slots, a
colliding destination evicts, so hostile traffic costs lookups but never memory. IPv4 and IPv6 take the same code.
Linux: fib_frontend.c, fib_semantics.c, fib_rules.c, ip6_route.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cython

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
    from userfw.core.packet import Address, Device
    from userfw.router.const import (
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_THROW,
        RTN_UNICAST,
        RTN_UNREACHABLE,
        RTN_UNSPEC,
        TABLE_DEFAULT,
        TABLE_LOCAL,
        TABLE_MAIN,
    )
    from userfw.router.lpm import Table, mix
    from userfw.router.types import Dst, Generation, NextHop, PathMtu, Route

CACHE_SLOTS = 32768


class Rule:
    """A routing policy rule (ip-rule(8)): what it matches, the table it asks, or the route type it answers with."""

    def __init__(
        self,
        priority: int,
        family: int,
        table: int = 0,
        type: int = RTN_UNICAST,
        mark: int = 0,
        mark_mask: int = 0,
        iif: int = 0,
        source: tuple[int, int, int] | None = None,
        destination: tuple[int, int, int] | None = None,
        invert: bool = False,
    ) -> None:
        self.priority = priority
        self.family = family
        self.table = table
        self.type = type
        self.mark = mark
        self.mark_mask = mark_mask
        self.iif = iif
        self.source = source
        self.destination = destination
        self.invert = invert

    def matches(self, hi: int, lo: int, src_hi: int, src_lo: int, mark: int, iif: int) -> bool:
        """The rule applies to a lookup with these keys."""
        hit = (
            (mark ^ self.mark) & self.mark_mask == 0
            and (self.iif == 0 or self.iif == iif)
            and _inside(self.family, self.destination, hi, lo)
            and _inside(self.family, self.source, src_hi, src_lo)
        )
        return bool(hit) != bool(self.invert)


def _inside(family: int, prefix: tuple[int, int, int] | None, hi: int, lo: int) -> bool:
    if prefix is None:
        return True
    shift = (32 if family == NFPROTO_IPV4 else 128) - prefix[2]
    return ((hi << 64) | lo) >> shift == ((prefix[0] << 64) | prefix[1]) >> shift


class Fib:
    """All tables of both families.

    `paths`: path MTUs by (family, hi, lo) of the destination, see pmtu. `asked`: the input devices of cached decisions.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed & U32_MASK
        self.generation = Generation()
        self.tables: dict[tuple[int, int], Table] = {}
        self.rules: list[Rule] = []
        self.by_mark = False
        self.by_source = False
        self.cache_mask = CACHE_SLOTS - 1
        self.cache: list[Dst | None] = [None] * CACHE_SLOTS
        self.paths: dict[tuple[int, int, int], PathMtu] = {}
        self.asked = {0}
        self.watchers: list[Callable[[], None]] = []
        self.local4 = self.table(NFPROTO_IPV4, TABLE_LOCAL)
        self.main4 = self.table(NFPROTO_IPV4, TABLE_MAIN)
        self.local6 = self.table(NFPROTO_IPV6, TABLE_LOCAL)
        self.main6 = self.table(NFPROTO_IPV6, TABLE_MAIN)

    # -- configuration

    def table(self, family: int, number: int) -> Table:
        """The table, made if it does not exist."""
        table = self.tables.get((family, number))
        if table is None:
            table = self.tables[family, number] = Table(family, number, self.seed)
        return table

    def changed(self) -> None:
        """Invalidate every cached decision; `watchers` are told before anybody else can act on the change."""
        self.generation.value = (self.generation.value + 1) & U32_MASK
        for watcher in self.watchers:
            watcher()

    def add(self, route: Route, replace: bool = False) -> None:
        """Add a route to its table; ValueError if one with the same prefix, tos and metric is there and not `replace`."""
        self.table(route.family, route.table).add(route, replace)
        self.changed()

    def remove(self, route: Route) -> None:
        """Remove this very route; KeyError if it is not in its table."""
        self.table(route.family, route.table).remove(route)
        self.changed()

    def set_rules(self, rules: list[Rule]) -> None:
        """Policy rules besides Linux's own three (local 0, main 32766, default 32767), in order of priority."""
        self.rules = sorted(rules, key=lambda r: int(r.priority))
        self.by_mark = any(r.mark_mask for r in rules)
        self.by_source = any(r.source is not None for r in rules)
        self.changed()

    def all(self) -> Iterator[Route]:
        """Every route of every table."""
        for key in sorted(self.tables):
            yield from self.tables[key].routes()

    # -- decisions

    def lookup(
        self,
        family: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        mark: cython.uint,
        iif: cython.int,
        oif: Device | None,
        tos: cython.int,
    ) -> Route | None:
        """The route by rules and tables, uncached; None if there is none. May be of any type but throw."""
        if self.rules:
            return self._lookup_rules(family, hi, lo, src_hi, src_lo, mark, iif, oif, tos)
        local: Table = self.local4 if family == NFPROTO_IPV4 else self.local6
        main: Table = self.main4 if family == NFPROTO_IPV4 else self.main6
        route: Route | None = local.lookup(hi, lo, oif, tos)
        if route is None or route.type == RTN_THROW:
            route = main.lookup(hi, lo, oif, tos)
        if route is None or route.type == RTN_THROW:
            return self._in_table(family, TABLE_DEFAULT, hi, lo, oif, tos)
        return route

    def broadcast4(self, lo: cython.ulonglong) -> cython.bint:
        """The IPv4 address is everybody's on some link (Linux: inet_addr_type_dev_table, which knows the local table only)."""
        route: Route | None = self.local4.lookup(0, lo, None, 0)
        return route is not None and route.type == RTN_BROADCAST

    def _in_table(
        self,
        family: cython.int,
        number: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        oif: Device | None,
        tos: cython.int,
    ) -> Route | None:
        table: Table | None = self.tables.get((family, number))
        if table is None:
            return None
        route: Route | None = table.lookup(hi, lo, oif, tos)
        if route is not None and route.type == RTN_THROW:
            return None
        return route

    def _lookup_rules(
        self,
        family: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        mark: cython.uint,
        iif: cython.int,
        oif: Device | None,
        tos: cython.int,
    ) -> Route | None:
        standing = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)]
        for rule in self.rules:
            while standing and standing[0][0] < rule.priority:
                found = self._in_table(family, standing.pop(0)[1], hi, lo, oif, tos)
                if found is not None:
                    return found
            if rule.family != family or not rule.matches(hi, lo, src_hi, src_lo, mark, iif):
                continue
            if rule.type != RTN_UNICAST:
                return Route(family, 0, 0, 0, [], type=rule.type)
            found = self._in_table(family, rule.table, hi, lo, oif, tos)
            if found is not None:
                return found
        for _, number in standing:
            found = self._in_table(family, number, hi, lo, oif, tos)
            if found is not None:
                return found
        return None

    def resolve(
        self,
        family: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        mark: cython.uint,
        iif: Device | None,
    ) -> Dst:
        """The decision for a destination, cached. Type RTN_UNSPEC: no route. With `ways`, choose one by `way`."""
        index: cython.int = iif.index if iif is not None else 0
        slot: cython.Py_ssize_t = (mix(hi, lo, self.seed) + index * 31 + (mark if self.by_mark else 0)) & self.cache_mask
        dst: Dst | None = self.cache[slot]
        if dst is not None and self._fits(dst, family, hi, lo, mark, index):
            return dst
        dst = self.cache[slot ^ 1]
        if dst is not None and self._fits(dst, family, hi, lo, mark, index):
            return dst
        oif: Device | None = iif if family == NFPROTO_IPV6 and _link_scoped(hi) else None
        route: Route | None = self.lookup(family, hi, lo, src_hi, src_lo, mark, index, oif, 0)
        dst = self.decide(route, family, hi, lo)
        dst.key_iif = index
        dst.key_mark = mark
        if not self.by_source:
            self.asked.add(index)
            self.cache[slot ^ 1] = self.cache[slot]
            self.cache[slot] = dst
        return dst

    def _fits(
        self, dst: Dst, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong, mark: cython.uint, index: cython.int
    ) -> cython.bint:
        """A cached decision is fresh and answers this question."""
        return (
            dst.key_lo == lo
            and dst.key_hi == hi
            and dst.gen == self.generation.value
            and dst.family == family
            and dst.key_iif == index
            and (dst.key_mark == mark or not self.by_mark)
        )

    def forget(self, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> None:
        """Something else holds for this destination than for others now: decisions about it are made anew."""
        place: cython.Py_ssize_t
        if self.by_mark:
            places = set(range(len(self.cache)))
        else:
            places = {(mix(hi, lo, self.seed) + index * 31) & self.cache_mask for index in self.asked}
            places |= {place ^ 1 for place in places}
        for place in places:
            dst: Dst | None = self.cache[place]
            if dst is not None and dst.family == family and dst.key_hi == hi and dst.key_lo == lo:
                dst.retire()
                self.cache[place] = None

    def resolve_out(
        self,
        family: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        mark: cython.uint,
        oif: Device | None,
    ) -> Dst:
        """The decision for a packet of the gateway itself, bound to `oif` if given; uncached when bound."""
        if oif is None:
            return self.resolve(family, hi, lo, src_hi, src_lo, mark, None)
        return self.decide(self.lookup(family, hi, lo, src_hi, src_lo, mark, 0, oif, 0), family, hi, lo)

    def decide(self, route: Route | None, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> Dst:
        """A Dst for `route` (None: no route) towards an address."""
        dst: Dst = self._decide(route, family, hi, lo)
        path: PathMtu | None
        if self.paths and dst.type == RTN_UNICAST:
            path = self.paths.get((family, hi, lo))
            if path is None:
                return dst
            if family == NFPROTO_IPV6:
                dst.prefixlen = 128  # a route of its own (Linux: ip6_rt_cache_alloc)
            if path.locked:
                dst = dst.narrowed(path.mtu)
            elif path.mtu < dst.mtu:
                dst.own = dst.narrowed(path.mtu)
        return dst

    def _decide(self, route: Route | None, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> Dst:
        dst: Dst = Dst(self.generation)
        dst.family = family
        dst.key_hi = hi
        dst.key_lo = lo
        dst.via_hi = hi
        dst.via_lo = lo
        dst.via_family = family
        dst.source = route
        if route is None:
            dst.type = RTN_UNSPEC
            return dst
        dst.type = route.type
        dst.src_hi = route.src_hi
        dst.src_lo = route.src_lo
        dst.mtu = route.mtu
        dst.prefixlen = route.prefixlen
        only: NextHop
        if len(route.nexthops) == 1:  # nearly always, and a flood of sources asks for each
            only = route.nexthops[0]
            if only.alive() or route.type == RTN_LOCAL:
                _take_hop(dst, only)
            elif route.type in (RTN_UNICAST, RTN_MULTICAST):
                dst.type = RTN_UNREACHABLE
            return dst
        hops = [hop for hop in route.nexthops if hop.alive() or route.type == RTN_LOCAL]
        if not hops:
            if route.type in (RTN_UNICAST, RTN_MULTICAST):
                dst.type = RTN_UNREACHABLE
            return dst
        _take_hop(dst, hops[0])
        if len(hops) > 1:
            ways: list[Dst] = []
            for hop in hops:
                way = Dst(self.generation)
                way.family, way.type, way.source = family, dst.type, route
                way.key_hi, way.key_lo, way.via_hi, way.via_lo, way.via_family = hi, lo, hi, lo, family
                way.src_hi, way.src_lo, way.mtu, way.prefixlen = dst.src_hi, dst.src_lo, route.mtu, route.prefixlen
                _take_hop(way, hop)
                way.weights = dst.weights = dst.weights + hop.weight
                ways.append(way)
            dst.ways = ways
        return dst

    def way(self, dst: Dst, flow: cython.uint) -> Dst:
        """The way of a multipath decision for a flow hash: hash threshold over the weights (Linux: fib_select_multipath)."""
        i: cython.Py_ssize_t
        item: Dst
        if dst.ways is None:
            return dst
        point: cython.ulonglong = flow
        point = (point * dst.weights) >> 32
        for i in range(len(dst.ways)):
            item = dst.ways[i]
            if point < cython.cast(cython.ulonglong, item.weights):
                return item
        return dst


def _link_scoped(hi: cython.ulonglong) -> cython.bint:
    """fe80::/10, ff01::/16 and ff02::/16 style addresses mean something on one link only."""
    top: cython.ulonglong = hi >> 54
    if top == 0x3FA:
        return True
    return (hi >> 56) == 0xFF and ((hi >> 48) & 15) <= 2


def _take_hop(dst: Dst, hop: NextHop) -> None:
    dst.oif = hop.device
    if dst.mtu == 0 and hop.device is not None:
        dst.mtu = hop.device.mtu
    dst.gateway = hop.gw_family != 0
    if hop.gw_family:
        dst.via_family = hop.gw_family
        dst.via_hi = hop.gw_hi
        dst.via_lo = hop.gw_lo


def local_address(fib: Fib, family: int, hi: int, lo: int) -> Device | None:
    """The device that owns the address (RTN_LOCAL), or None."""
    table = fib.local4 if family == NFPROTO_IPV4 else fib.local6
    route = table.lookup(hi, lo, None, 0)
    if route is None or route.type != RTN_LOCAL or not route.nexthops:
        return None
    hop: NextHop = route.nexthops[0]
    return hop.device


def find_address(device: Device, family: int, hi: int, lo: int) -> Address | None:
    """The device's own entry of an address."""
    for address in device.addresses:
        if address.family == family and address.hi == hi and address.lo == lo:
            return address
    return None
