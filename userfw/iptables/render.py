"""A parsed rule as nft words.

Laws: the order is nft's translation's: interfaces, the family's own fields, matches in their order, ``counter``, the target,
the comment. A rule with a part that nft has no words for has no translation (None); never half of one, and never text
that the argument of an option could break out of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from userfw.iptables.extension import Rule, Use, Words
from userfw.iptables.matches_state import mixed_states
from userfw.iptables.values import compare, mac_text, masked, protocol_text

COMMENT_MOST = 128  # octets: nft refuses longer ones
_SPENT = ("limit", "hashlimit", "connlimit", "quota", "statistic", "recent")  # they would be asked twice
_UNQUOTABLE = re.compile(r'["\x00-\x1f\x7f\ud800-\udfff]')
_NAME = re.compile(r"[A-Za-z_.][\w/.\\-]*", re.ASCII)


def sayable(rule: Rule, chain: str) -> bool:
    """Whether nft can write the rule's strings and names: its strings have no escape for a quote or a control character."""
    uses = [*rule.matches, *([rule.target] if rule.target else [])]
    strings = [given.value for use in uses for given in use.given.values() if isinstance(given.value, str)]
    strings += [value for value, _ in rule.fields.values() if isinstance(value, str)]
    names = [chain] + ([rule.jump] if rule.jump and rule.target is None else [])
    return not any(map(_UNQUOTABLE.search, strings)) and all(map(_NAME.fullmatch, names))


def lacking(rule: Rule, chain: str) -> str:
    """What of a rule nft has no words for; empty if it has for all."""
    if not sayable(rule, chain):
        return "nft cannot write a name or string of the rule"
    for use in rule.matches:
        if use.extension.words(use, rule) is None:
            return f"nft has no words for {'' if rule.family.preloaded else '-m '}{_shown(use)}"
    if rule.target is not None and rule.target.extension.words(rule.target, rule) is None:
        return f"nft has no words for -j {_shown(rule.target)}"
    return ""


def _shown(use: Use) -> str:
    """An extension with those of its options that are to blame, if some are."""
    silent = [name for name, given in use.given.items() if not given.option.text]
    said = any(option.text for option in use.extension.options)
    return " ".join([use.extension.name, *(f"--{name}" for name in silent if said)])


def either(rule: Rule) -> bool:
    """Whether the rule asks for one of two things that nft asks for by two keys: it becomes two rules, of which one applies."""
    mixed = any(mixed_states(use) for use in rule.matches)
    return mixed and all(use.extension.name not in _SPENT for use in rule.matches)


def rule_words(rule: Rule, source: tuple[int, int] | None, destination: tuple[int, int] | None) -> Words:
    """The words of a rule for one pair of addresses (None: any), or None without a translation."""
    words = list(_interfaces(rule))
    if rule.family.preloaded:
        words += _bridge_header(rule)
    elif rule.family.protocol:
        words += _ip_header(rule, source, destination)
    else:
        words += _arp_header(rule, source, destination)
    for use in rule.matches:
        part = use.extension.words(use, rule)
        if part is None:
            return None
        words += part
    words.append("counter")
    action = _action(rule)
    if action is None:
        return None
    words += action
    if rule.comment:
        comment = rule.comment.encode(errors="surrogateescape")[:COMMENT_MOST].decode(errors="ignore")
        words.append(f'comment "{comment}"')
    return words


def interface(key: str, name: str, inverted: bool) -> str:
    """A device's name: a last ``+`` is a wildcard, a last ``*`` is not; ``+`` alone is every device."""
    if name == "+":
        return f'{key} "INVAL/D"' if inverted else ""
    if name.endswith("*"):
        name = name[:-1] + "\\*"
    elif name.endswith("+"):
        name = name[:-1] + "*"
    return compare(key, inverted, f'"{name}"')


def _interfaces(rule: Rule) -> Iterator[str]:
    for name, key in (
        ("in-interface", "iifname"), ("logical-in", "meta ibrname"), ("out-interface", "oifname"), ("logical-out", "meta obrname"),
    ):  # fmt: skip
        if name in rule.fields:
            text = interface(key, *rule.fields[name])
            if text:
                yield text


def _addresses(rule: Rule, source: tuple[int, int] | None, destination: tuple[int, int] | None, word: str) -> Iterator[str]:
    for value, name, key in ((source, "source", "saddr"), (destination, "destination", "daddr")):
        if value is not None:
            inverted = rule.fields[name][1]
            if value[1] or inverted:
                yield masked(word.format(key), inverted, value, rule.family.bits)


def _ip_header(rule: Rule, source: tuple[int, int] | None, destination: tuple[int, int] | None) -> Iterator[str]:
    if "fragments" in rule.fields:
        yield f"ip frag-off & 0x1fff {'0' if rule.fields['fragments'][1] else '!= 0'}"
    if rule.protocol is not None and not _implied(rule):
        yield compare(rule.family.protocol, rule.protocol_inverted, protocol_text(rule.protocol))
    yield from _addresses(rule, source, destination, f"{rule.family.address} {{}}")


def _implied(rule: Rule) -> bool:
    """Whether a match says the protocol already."""
    name = protocol_text(rule.protocol or 0)
    return any(name == use.extension.name or name in use.extension.shadow for use in rule.matches)


def _arp_header(rule: Rule, source: tuple[int, int] | None, destination: tuple[int, int] | None) -> Iterator[str]:
    for name, key, default, show in (
        ("h-type", "htype", 1, "{}"), ("h-length", "hlen", 6, "{}"), ("", "plen", 4, "{}"), ("opcode", "operation", 0, "{}"),
        ("proto-type", "ptype", 0, "0x{:x}"),
    ):  # fmt: skip
        (value, mask), inverted = rule.fields.get(name, ((default, None), False))
        if mask is not None:
            yield f"arp {key} & {mask:#x} {'!=' if inverted else '=='} {value:#x}"
        elif value:
            yield compare(f"arp {key}", inverted, show.format(value))
    yield from _addresses(rule, source, destination, "arp {} ip")
    for name, key in (("source-mac", "arp saddr ether"), ("destination-mac", "arp daddr ether")):
        if name in rule.fields:
            (value, mask), inverted = rule.fields[name]
            yield masked_mac(key, inverted, value, mask)


def masked_mac(key: str, inverted: bool, value: bytes, mask: bytes) -> str:
    """A comparison with a link-layer address under a mask."""
    if mask == b"\xff" * 6:
        return compare(key, inverted, mac_text(value))
    return f"{key} and {mac_text(mask)} {'!=' if inverted else '=='} {mac_text(value)}"


def _bridge_header(rule: Rule) -> Iterator[str]:
    if "length" in rule.fields:
        yield f"ether type {'>=' if rule.fields['length'][1] else '<'} 0x0600"
    if "ethertype" in rule.fields:
        number, inverted = rule.fields["ethertype"]
        said = {0x800: "ip", 0x86DD: "ip6", 0x8100: "vlan"}.get(number)
        if inverted or not any(use.extension.name == said for use in rule.matches):
            yield compare("ether type", inverted, f"0x{number:x}")
    for name, key in (("source", "ether saddr"), ("destination", "ether daddr")):
        if name in rule.fields:
            (value, mask), inverted = rule.fields[name]
            yield masked_mac(key, inverted, value, mask)


def _action(rule: Rule) -> Words:
    if not rule.jump:
        return []
    if rule.target is not None:
        return target_words(rule.target, rule)
    if rule.goto:
        return [f"goto {rule.jump}"]
    if rule.jump in ("ACCEPT", "DROP", "RETURN"):
        return [rule.jump.lower()]
    if rule.jump == "CONTINUE" and rule.family.preloaded:
        return []
    if rule.jump == "QUEUE":
        return ["queue num 0"]
    return [f"jump {rule.jump}"]


def target_words(use: Use, rule: Rule) -> Words:
    """The words of a target."""
    return use.extension.words(use, rule)
