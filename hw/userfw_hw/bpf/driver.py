"""The eBPF driver: flows as entries of one map, looked up by a program on each interface, at XDP or at tc ingress.

- tc (ports of type `packet` with `capture = "tc"`): large sends stay whole, checksums still to be completed stay right.
  The choice for veth and wherever the other end is a local stack.
- XDP (any port on an interface, when the configuration says so): fastest for small packets of real NICs. On veth it needs `tx off`
  at the peer, because XDP cannot know that a checksum is still to be completed, and it switches the peer's large sends off.

Entries count for themselves (packets, bytes, last use). Nothing outlives the process: programs hang on links that end with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userfw.offload.contract import Capabilities, Done, Driver, Failure, Refusal, Rule, Statistics, Target
from userfw.ports import bpf as syscall
from userfw.ports.netlink import Netlink
from userfw.ports.netns import run_in
from userfw_hw.bpf import forward
from userfw_hw.bpf.capture import CapturePort

MAX_FLOWS = 1 << 17


@dataclass(slots=True)
class Hook:
    """One interface with the program on it; `link` is -1 where a CapturePort holds it."""

    target: Target
    kind: str
    link: int = -1
    hung: bool = False


class BpfDriver(Driver):
    """`attach`: "xdp" or "tc" for each device that the configuration forces; "auto" is tc on capture ports, else none."""

    name = "bpf"

    def __init__(self, attach: Mapping[str, str] | None = None, capacity: int = MAX_FLOWS) -> None:
        self.wanted = dict(attach or {})
        self.capacity = capacity
        self.flows: syscall.Map | None = None
        self.hooks: dict[str, Hook] = {}
        self.keys: dict[int, bytes] = {}
        self.netns: str | None = None

    def probe(self, target: Target) -> Capabilities | Refusal:
        kind = self._kind(target)
        if kind not in ("xdp", "tc"):
            return Refusal(kind)
        if self.hooks and (target.netns or "") != (self.netns or ""):
            return Refusal("the interfaces of one flowtable must be in one network namespace")
        try:
            os.close(self._load(target, kind)[0])
        except syscall.VerifierError as error:
            return Refusal(f"{error.strerror}\n{error.log}")
        except OSError as error:
            return Refusal(f"{kind}: {error.strerror}")
        self.netns = target.netns
        self.hooks.setdefault(target.name, Hook(target, kind))
        return Capabilities(capacity=self.capacity, where=kind)

    def _kind(self, target: Target) -> str:
        """xdp, tc, or the words that say why neither."""
        wanted = self.wanted.get(target.name, "auto")
        captured = isinstance(target.port, CapturePort)
        if target.ifindex <= 0 or not target.system_name:
            return "the port has no interface of its own on the gateway's side"
        if wanted == "xdp":
            return "a port with capture = \"tc\" cannot use XDP" if captured else "xdp"
        if captured:
            return "tc"
        return 'flows at tc need a port with capture = "tc"; XDP is used where the configuration says so'

    def _load(self, target: Target, kind: str) -> tuple[int, int]:
        """The program for this interface and the kind of its attachment. VerifierError, OSError."""
        if self.flows is None:
            self.flows = syscall.Map(
                syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, self.capacity, "userfw_flows", syscall.F_NO_PREALLOC
            )
        if kind == "tc":
            code = forward.build(forward.TC, self.flows.fd, target.ifindex, bytes(6), capture=1)
            return syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_tc"), syscall.ATTACH_TCX_INGRESS
        netlink = Netlink(target.netns)
        try:
            mac = netlink.link(target.system_name).mac
        finally:
            netlink.close()
        code = forward.build(forward.XDP, self.flows.fd, target.ifindex, mac)
        return syscall.load(syscall.PROG_TYPE_XDP, code, "userfw_xdp"), syscall.ATTACH_XDP

    def _hang(self, hook: Hook) -> None:
        """Put the program on the interface, with the first flow that needs it."""
        target = hook.target
        if isinstance(target.port, CapturePort):
            assert self.flows is not None
            target.port.load(self.flows.fd)
        else:
            program, kind = self._load(target, hook.kind)
            try:
                hook.link = run_in(target.netns, lambda: syscall.attach(program, target.ifindex, kind))
            finally:
                os.close(program)
        hook.hung = True

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        for rule in rules:
            done(rule.id, self._insert(rule))

    def _insert(self, rule: Rule) -> Failure | None:
        here, there = self.hooks.get(rule.match.device), self.hooks.get(rule.actions.device)
        if self.flows is None or here is None or there is None or here.kind != there.kind:
            return Failure.UNSUPPORTED
        key = forward.key(rule.match)
        try:
            for hook in (here, there):
                if not hook.hung:
                    self._hang(hook)
            self.flows[key] = forward.value(rule.match, rule.actions)
        except OSError as error:
            return Failure.FULL if error.errno in (errno.E2BIG, errno.ENOMEM) else Failure.FAULT
        self.keys[rule.id] = key
        return None

    def remove(self, ids: Iterable[int]) -> None:
        for id in ids:
            key = self.keys.pop(id, None)
            if key is not None and self.flows is not None:
                self.flows.pop(key)

    def statistics(self) -> list[Statistics]:
        records = []
        for id, key in self.keys.items():
            entry = self.flows.get(key) if self.flows is not None else None
            if entry is not None:
                records.append(Statistics(id, *forward.counters(entry)))
        return records

    def close(self) -> None:
        for hook in self.hooks.values():
            if hook.link >= 0:
                os.close(hook.link)
            elif isinstance(hook.target.port, CapturePort) and hook.target.port.fd >= 0:
                hook.target.port.load()
        self.hooks.clear()
        self.keys.clear()
        if self.flows is not None:
            self.flows.close()
            self.flows = None


def make(options: Mapping[str, Any]) -> BpfDriver:
    """The driver as userfw.offload.drivers asks for it."""
    return BpfDriver(dict.fromkeys(options.get("xdp", ()), "xdp"))
