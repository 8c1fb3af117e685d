"""The eBPF driver: flows as entries of one map, looked up by a program on each interface, at XDP or at tc ingress (see `choice`).

- tc, on ports of type `packet`: with the first flow the port's frames begin to come by tc (capture), for a packet socket sees
  each frame before tc does and it would be forwarded twice.
- XDP, on ports of type `packet`, and of type `xdp`, whose program is replaced by one that looks flows up first.

Entries count for themselves (packets, bytes, last use). Nothing outlives the process: programs hang on links that end with it
(before Linux 6.6, at tc, on a filter that stops by itself and that the next start removes).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userfw.offload.contract import Capabilities, Done, Driver, Failure, Refusal, Rule, Statistics, Target
from userfw.ports import bpf as syscall
from userfw.ports.netlink import Netlink
from userfw.ports.netns import run_in
from userfw.ports.xdp import XDP_DROP, XDP_FLAGS
from userfw_hw.bpf import forward
from userfw_hw.bpf.capture import CapturePort
from userfw_hw.bpf.choice import Choice, Facts, choose, facts_of

MAX_FLOWS = 1 << 17
SLICE = 8192  # entries read in one call of `statistics`


@dataclass(slots=True)
class Hook:
    """One interface: why the program is where it is, and the link that it hangs on (-1: the port holds it)."""

    target: Target
    facts: Facts
    choice: Choice
    link: int = -1
    hung: bool = False
    mac: bytes = b""


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
        self.netns: str | None = None
        self._cursor: bytes | None = None
        self._batches = True

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
            if old is not None and old.link >= 0:
                os.close(old.link)
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
        mac = self._address(hook)
        index = hook.target.ifindex
        if hook.choice.kind == "tc":
            code = forward.build(forward.TC, self.flows.fd, index, mac, capture=capture)
            return syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_tc")
        shared = getattr(hook.target.port, "shared", None)
        sockets = shared.map.fd if shared is not None and shared.map is not None else 0
        code = forward.build(forward.XDP, self.flows.fd, index, mac, sockets=sockets, otherwise=XDP_DROP)
        return syscall.load(syscall.PROG_TYPE_XDP, code, "userfw_xdp")

    def _address(self, hook: Hook) -> bytes:
        """The address that frames for the gateway carry on this interface."""
        device = getattr(hook.target.port, "device", None)
        if device is not None and device.mac:
            return bytes(device.mac)
        netlink = Netlink(hook.target.netns)
        try:
            return netlink.link(hook.target.system_name).mac
        finally:
            netlink.close()

    def _hang(self, hook: Hook) -> None:
        """Put the program on the interface, with the first flow that needs it, or anew if the interface's address changed."""
        mac = self._address(hook)
        if hook.hung and hook.mac == mac:
            return
        target = hook.target
        if hook.choice.kind == "tc":
            port: Any = target.port
            if not isinstance(port, CapturePort):
                assert self.capture is not None
                target.port = port = self.capture(target.name)
            assert self.flows is not None
            port.load(self.flows.fd)
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
                    hook.link = run_in(
                        target.netns, lambda: syscall.attach(program, target.ifindex, syscall.ATTACH_XDP, flags)
                    )
            finally:
                os.close(program)
        hook.hung, hook.mac = True, mac

    # -- flows

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        for rule in rules:
            done(rule.id, self._insert(rule))

    def _insert(self, rule: Rule) -> Failure | None:
        here, there = self.hooks.get(rule.match.device), self.hooks.get(rule.actions.device)
        if self.flows is None or here is None or there is None:
            return Failure.UNSUPPORTED
        if here.choice.mode == "native" and not there.facts.takes:
            return Failure.UNSUPPORTED  # frames redirected to it would be lost without a word
        if max(len(rule.match.vlans), len(rule.actions.vlans)) > 2:
            return Failure.UNSUPPORTED
        key = forward.key(rule.match)
        try:
            for hook in (here, there):
                self._hang(hook)
            self.flows[key] = forward.value(rule.match, rule.actions)
        except OSError as error:
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

    def close(self) -> None:
        for hook in self.hooks.values():
            port = hook.target.port
            shared = getattr(port, "shared", None)
            if hook.link >= 0:
                os.close(hook.link)
            elif isinstance(port, CapturePort) and port.fd >= 0:
                port.load()
            elif hook.hung and shared is not None and shared.link >= 0:
                shared.restore()
        self.hooks.clear()
        self.keys.clear()
        self.ids.clear()
        if self.flows is not None:
            self.flows.close()
            self.flows = None


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
