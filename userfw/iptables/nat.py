"""Targets that translate addresses: SNAT, DNAT, MASQUERADE, REDIRECT."""

from __future__ import annotations

from userfw.iptables.errors import UsageError
from userfw.iptables.extension import Extension, Option, Rule, Use, Words
from userfw.iptables.values import Bad, Context, Kind, address, address_text, integer, port
from userfw.nft.datatype_names import SERVICES

_WITH_PORTS = (1, 6, 17, 33, 58, 132, 136)


def _read_ports(text: str, base_allowed: bool = False) -> str:
    """A port or service, or a range of numbers with perhaps a base port behind a slash."""
    low, dash, high = text.partition("-")
    if not dash or text in SERVICES:
        return str(port(text))
    high, slash, base = high.partition("/")
    first, last = integer(low, 0, 0xFFFF), integer(high, 0, 0xFFFF)
    if first > last:
        raise Bad(f"Port range `{text}' funky")
    if slash and (not base_allowed or port(base) == 0):
        raise Bad(f"Invalid base port `{base}'")
    return f"{first}-{last}" + (f"/{port(base)}" if slash else "")


def _read_target(text: str, context: Context) -> tuple[str, str]:
    """``[address[-address]][:port[-port]]`` as (addresses, ports) in canonical text."""
    bits = context.family.bits
    if bits == 128:
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise Bad
            ports = rest[1:]
        elif text.startswith(":") and not text.startswith("::"):
            host, ports = "", text[1:]
        else:
            host, ports = text, ""
    else:
        host, _, ports = text.partition(":")
    if text.endswith(":") and bits == 32:
        raise Bad
    low, dash, high = host.partition("-")
    addresses = address_text(address(low, bits), bits) if low else ""
    if dash:
        addresses += "-" + address_text(address(high, bits), bits)
    return addresses, _read_ports(ports, base_allowed=True) if ports else ""


TARGET = Kind(_read_target)
TO_PORTS = Kind(lambda text, context: ("", _read_ports(text)))
FLAGS = (("random", "random"), ("random-fully", "fully-random"), ("persistent", "persistent"))



def _render(use: Use, rule: Rule) -> Words:
    verb = {"SNAT": "snat", "DNAT": "dnat", "MASQUERADE": "masquerade", "REDIRECT": "redirect"}[use.extension.name]
    text = verb
    to = next((given.value for given in use.given.values() if isinstance(given.value, tuple)), None)
    if to is not None:
        addresses, ports = to
        if "/" in ports:
            return None  # nft has no base port
        if addresses and ports and rule.family.bits == 128:
            addresses = f"[{addresses}]"
        text += f" to {addresses}" + (f":{ports}" if ports else "")
    flags = ",".join(word for name, word in FLAGS if name in use)
    return [f"{text} {flags}" if flags else text]


def _check(use: Use, rule: Rule) -> None:
    to = next((given.value for given in use.given.values() if isinstance(given.value, tuple)), None)
    if to is not None and to[1] and (rule.protocol not in _WITH_PORTS or rule.protocol_inverted):
        raise UsageError(f"{use.extension.name}: Need TCP, UDP, SCTP or DCCP with port specification")


def _target(name: str, option: Option, *flags: str) -> Extension:
    return Extension(name, (option, *(Option(flag) for flag in flags)), render=_render, check=_check)


NAT_TARGETS = (
    _target("SNAT", Option("to-source", TARGET, required=True), "random", "random-fully", "persistent"),
    _target("DNAT", Option("to-destination", TARGET, required=True), "random", "persistent"),
    _target("MASQUERADE", Option("to-ports", TO_PORTS), "random", "random-fully"),
    _target("REDIRECT", Option("to-ports", TO_PORTS), "random"),
)

