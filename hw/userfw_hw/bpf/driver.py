"""The eBPF driver: flows as entries of one map, looked up by a program on each interface, at XDP or at tc ingress (see `choice`).

- tc, on ports of type `packet`: with the first flow the port's frames begin to come by tc (capture), for a packet socket sees
  each frame before tc does and it would be forwarded twice.
- XDP, on ports of type `packet`, and of type `xdp`, whose program is replaced by one that looks flows up first.

Stateless filters are code of the same program and come before the lookup (`filters`): a new list is a new program in the place of
the old one. Entries count for themselves (packets, bytes, last use). Nothing outlives the process: programs hang on links that end
with it (before Linux 6.6, at tc, on a filter that stops by itself and that the next start removes).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userfw.offload.contract import Capabilities, Done, Driver, Failure, Filter, Refusal, Rule, Statistics, Target
from userfw.ports import bpf as syscall
from userfw.ports.ethtool import features
from userfw.ports.isolate import MARK
from userfw.ports.netlink import Netlink
from userfw.ports.netns import run_in
from userfw.ports.xdp import XDP_DROP, XDP_FLAGS
from userfw_hw.bpf import forward
from userfw_hw.bpf.capture import CapturePort
from userfw_hw.bpf.choice import LOCAL, Choice, Facts, choose, facts_of, takes_frames
from userfw_hw.bpf.edges import TC, XDP
from userfw_hw.bpf.filters import FilterList

MAX_FLOWS = 1 << 17
SLICE = 8192  # entries read in one call of `statistics`


@dataclass(slots=True)
class Hook:
    """One interface: why the program is where it is, the link that it hangs on (-1: the port holds it), its stateless filters.
    `mac`: its address in the program that is there; `bridge`: that of the bridge whose port it is, once a flow came over it."""

    target: Target
    facts: Facts
    choice: Choice
    link: int = -1
    hung: bool = False
    mac: tuple[bytes, ...] = ()
    bridge: bytes = b""
    filters: FilterList | None = None

    def release(self) -> None:
        """What the driver itself holds open."""
        if self.link >= 0:
            os.close(self.link)
            self.link = -1
        if self.filters is not None:
            self.filters.close()


class BpfDriver(Driver):
    """`attach`: "xdp" or "tc" for each device that the configuration forces. `capture(name)`: have a packet port's frames come by
    tc and return the CapturePort; None if there is nobody to do it."""

    name = "bpf"
    interval = 250_000_000

    def __init__(
        self,
        attach: Mapping[str, str] | None = None,
        capacity: int = MAX_FLOWS,
        capture: Callable[[str], Any] | None = None,
    ) -> None:
        self.wanted = dict(attach or {})
        self.capacity = capacity
        self.capture = capture
        self.flows: syscall.Map | None = None
        self.hooks: dict[str, Hook] = {}
        self.keys: dict[int, bytes] = {}
        self.ids: dict[bytes, int] = {}
        self._retired: list[Statistics] = []
        self._cursor: bytes | None = None
        self._batches = True
        self._words = ""

    # -- devices

    def probe(self, target: Target) -> Capabilities | Refusal:
        if target.ifindex <= 0 or not target.system_name:
            return Refusal("the port has no interface of its own on the gateway's side")
        facts = facts_of(target.port, target.system_name, target.ifindex, target.netns, target.vlans)
        choice = choose(facts, self.wanted.get(target.name, "auto"))
        if isinstance(choice, str):
            return Refusal(choice)
        if choice.kind == "tc" and facts.port == "packet" and self.capture is None:
            return Refusal('flows at tc need a port with capture = "tc"')
        if any(hook.target.netns != target.netns for hook in self.hooks.values()):
            return Refusal("the interfaces of one flowtable must be in one network namespace")
        hook = Hook(target, facts, choice)
        try:
            os.close(self._load(hook, capture=1))
        except syscall.VerifierError as error:
            return Refusal(f"{error.strerror}\n{error.log}")
        except OSError as error:
            return Refusal(f"{choice.where}: {_words(error)}")
        old = self.hooks.get(target.name)
        if old is None or old.target.ifindex != target.ifindex or old.target.port is not target.port:
            if old is not None:
                old.release()
            self.hooks[target.name] = hook
        return Capabilities(capacity=self.capacity, vlans=choice.kind == "tc", where=choice.where)

    def describe(self, target: Target) -> dict[str, object]:
        hook = self.hooks.get(target.name)
        if hook is None:
            return {}
        return {"because": hook.choice.reason, "system_driver": hook.facts.driver, "attached": hook.hung}

    def _load(self, hook: Hook, capture: int = 0) -> int:
        """The program for this interface, its descriptor. VerifierError, OSError."""
        if self.flows is None:
            self.flows = syscall.Map(
                syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, self.capacity, "userfw_flows", syscall.F_NO_PREALLOC
            )
        mac = self._addresses(hook)
        index = hook.target.ifindex
        if hook.choice.kind == "tc":
            code = forward.build(TC, self.flows.fd, index, mac, capture=capture, filters=hook.filters)
            return syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_tc")
        shared = getattr(hook.target.port, "shared", None)
        sockets = shared.map.fd if shared is not None and shared.map is not None else 0
        code = forward.build(XDP, self.flows.fd, index, mac, sockets=sockets, otherwise=XDP_DROP, filters=hook.filters)
        return syscall.load(syscall.PROG_TYPE_XDP, code, "userfw_xdp")

    def _addresses(self, hook: Hook) -> tuple[bytes, ...]:
        """The addresses that frames for the gateway carry on this interface."""
        own = self._address(hook)
        return (own, hook.bridge) if hook.bridge else (own,)

    def _address(self, hook: Hook) -> bytes:
        """The interface's address."""
        device = getattr(hook.target.port, "device", None)
        if device is not None and device.mac:
            return bytes(device.mac)
        netlink = Netlink(hook.target.netns)
        try:
            return netlink.link(hook.target.system_name).mac
        finally:
            netlink.close()

    def _hang(self, hook: Hook, anew: bool = False) -> None:
        """Put the program on the interface, with the first flow that needs it; `anew`, or if the interface's address changed, a new
        one in the old one's place."""
        mac = self._addresses(hook)
        if hook.hung and hook.mac == mac and not anew:
            return
        target = hook.target
        if hook.choice.kind == "tc":
            port: Any = target.port
            if not isinstance(port, CapturePort):
                assert self.capture is not None
                target.port = port = self.capture(target.name)
            assert self.flows is not None
            port.load(self.flows.fd, hook.filters, hook.bridge)
        else:
            program = self._load(hook)
            try:
                shared = getattr(target.port, "shared", None)
                if shared is not None:
                    syscall.replace(shared.link, program)
                elif hook.link >= 0:
                    syscall.replace(hook.link, program)
                else:
                    flags = XDP_FLAGS[hook.choice.mode]
                    hook.link = run_in(target.netns, lambda: syscall.attach(program, target.ifindex, syscall.ATTACH_XDP, flags))
            finally:
                os.close(program)
        hook.hung, hook.mac = True, mac

    # -- flows

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        for rule in rules:
            self._words = ""
            done(rule.id, self._insert(rule))

    def explain(self, id: int) -> str:
        return self._words

    def _insert(self, rule: Rule) -> Failure | None:
        here, there = self.hooks.get(rule.match.device), self.hooks.get(rule.actions.device)
        if self.flows is None or here is None or there is None:
            self._words = f"{rule.actions.device if here is not None else rule.match.device} is none of its interfaces"
            return Failure.UNSUPPORTED
        if here.choice.mode == "native" and not there.facts.takes:  # they would be lost without a word
            self._words = f"frames cannot be redirected to {rule.actions.device} natively"
            return Failure.UNSUPPORTED
        if max(len(rule.match.vlans), len(rule.actions.vlans)) > 2:
            self._words = "more than two tags"
            return Failure.UNSUPPORTED
        key = forward.key(rule.match)
        here.bridge = rule.match.ethernet or here.bridge
        try:
            for hook in (here, there):
                self._hang(hook)
            self.flows[key] = forward.value(rule.match, rule.actions)
        except OSError as error:
            self._words = error.strerror or ""
            if error.errno in (errno.ENODEV, errno.ENXIO):
                return Failure.GONE
            return Failure.FULL if error.errno in (errno.E2BIG, errno.ENOMEM) else Failure.FAULT
        self.keys[rule.id] = key
        self.ids[key] = rule.id
        return None

    def remove(self, ids: Iterable[int]) -> list[Statistics]:
        final = []
        for id in ids:
            key = self.keys.pop(id, None)
            if key is None or self.flows is None or self.ids.get(key) != id:
                continue
            del self.ids[key]
            entry = self.flows.take(key)
            if entry is not None:
                final.append(Statistics(id, *forward.counters(entry)))
        return final

    def statistics(self) -> list[Statistics]:
        """The next SLICE entries."""
        if self.flows is None or not self.ids:
            return []
        if self._batches:
            try:
                found, self._cursor = self.flows.batch(self._cursor, SLICE)
                return [Statistics(self.ids[k], *forward.counters(v)) for k, v in found if k in self.ids]
            except OSError as error:
                self._cursor = None
                if error.errno != errno.EINVAL:
                    return []
                self._batches = False  # before Linux 5.6
        entries = ((id, self.flows.get(key)) for id, key in self.keys.items())
        return [Statistics(id, *forward.counters(entry)) for id, entry in entries if entry is not None]

    # -- stateless filters

    def set_filters(self, target: Target, filters: Sequence[Filter]) -> tuple[int, str] | None:
        hook = self.hooks.get(target.name)
        if hook is None or (not filters and hook.filters is None):
            return (0, "the interface is gone") if filters else None
        for item in filters:
            reason = self._cannot(hook, item)
            if reason:
                return item.id, reason
        before = hook.filters
        try:
            made = FilterList(filters, MARK) if filters else None
        except OSError as error:
            return 0, f"counters of {len(filters)} filters: {_words(error)}"
        excess = made.too_long(XDP if hook.choice.kind == "xdp" else TC) if made is not None else None
        if made is not None and excess is not None:
            made.close()
            return excess.id, "the program has no room for so many filters"
        hook.filters = made
        words = self._exchange(hook)
        if words:
            hook.filters = before
            if made is not None:
                made.close()
            return 0, words
        if before is not None:
            self._retired += before.statistics()
            before.close()
        if made is None and not self.ids and hook.link >= 0:
            os.close(hook.link)  # neither filters nor flows: nothing is left to do at XDP
            hook.link, hook.hung = -1, False
        return None

    def _exchange(self, hook: Hook) -> str:
        """A program with the hook's filters in the place of the one that is there; in words, why the old one stays."""
        try:
            self._hang(hook, anew=True)
        except syscall.VerifierError as error:
            return f"{error.strerror}\n{error.log}"
        except OSError as error:
            if hook.filters is None and error.errno in (errno.ENODEV, errno.ENXIO, errno.ENOLINK):
                return ""  # gone, and the program with it
            return f"{hook.choice.where}: {_words(error)}"
        return ""

    def _cannot(self, hook: Hook, item: Filter) -> str:
        """What of a filter the program cannot do on this interface."""
        xdp = hook.choice.kind == "xdp"
        if xdp and item.tags:
            return "XDP puts no tags on what a filter forwards; tc does ([offload] tc)"
        if xdp and item.copies:
            return "XDP cannot copy a frame; tc can ([offload] tc)"
        if xdp and any(test.key in ("vlan_id", "eth_type") for test in item.tests) and _tags_beside(hook.target):
            return "tags stand beside the frame, where XDP does not look; tc does ([offload] tc)"
        for name, index in (*item.copies, *((item.out,) if item.verdict == "forward" else ())):
            if index <= 0:
                return f"{name} is no interface of the same network namespace"
            if hook.choice.mode != "native" or item.verdict != "forward":
                continue
            if hook.facts.driver in LOCAL:
                return f"native XDP on {hook.facts.driver} cannot complete checksums that senders leave to it; tc can"
            if not takes_frames(index, hook.target.netns):
                return f"frames cannot be redirected to {name} natively"
        return ""

    def filter_statistics(self) -> list[Statistics]:
        """Also, once, the last totals of lists that were replaced."""
        retired, self._retired = self._retired, []
        lists = [hook.filters for hook in self.hooks.values() if hook.filters is not None]
        return retired + [record for made in lists for record in made.statistics()]

    def release(self, target: Target) -> None:
        hook = self.hooks.pop(target.name, None)
        if hook is not None:
            if hook.filters is not None:
                self._retired += hook.filters.statistics()
            self._let_go(hook)

    def _let_go(self, hook: Hook) -> None:
        """The interface is as it was; a port that goes on has its own program again. OSError."""
        port = hook.target.port
        shared = getattr(port, "shared", None)
        attached = hook.link >= 0
        hook.release()
        if attached:
            return
        if isinstance(port, CapturePort) and port.fd >= 0:
            port.load()
        elif hook.hung and shared is not None and shared.link >= 0:
            shared.restore()

    def close(self) -> None:
        for hook in self.hooks.values():
            self._let_go(hook)
        self.hooks.clear()
        self.keys.clear()
        self.ids.clear()
        if self.flows is not None:
            self.flows.close()
            self.flows = None


def _tags_beside(target: Target) -> bool:
    """The interface takes tags out of the frame before XDP sees it, as a veth and most cards do."""
    known = features(target.system_name, target.netns)
    return any(known.get(name, False) for name in ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"))


def _words(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "not permitted: CAP_BPF and CAP_NET_ADMIN are needed (CAP_SYS_ADMIN before Linux 5.8)"
    if error.errno == errno.ENOSYS:
        return error.strerror or "this kernel has no bpf(2)"
    return error.strerror or str(error)


def make(options: Mapping[str, Any]) -> BpfDriver:
    """The driver as userfw.offload.drivers asks for it."""
    attach = dict.fromkeys(options.get("xdp", ()), "xdp") | dict.fromkeys(options.get("tc", ()), "tc")
    return BpfDriver(attach, capture=options.get("capture"))
