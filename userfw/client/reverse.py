"""``-N``: the names of addresses, asked for by the client while it prints (nft: ``ipaddr_type_print`` with getnameinfo).

Laws:
- The daemon never waits for a name server: it marks the addresses of a listing (``userfw.nft.datatype.MARKS``), and here each
  becomes a name, or itself where it has none. Ends of ranges and prefixes are not marked.
- A name that could be something else in a ruleset (a space, a quotation mark) is not taken.
"""

from __future__ import annotations

import re
import socket
from typing import Final

from userfw.nft.datatype import MARKS

_MARKED: Final = re.compile(f"{MARKS[0]}([0-9A-Fa-f.:]*){MARKS[1]}")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Resolver:
    """Names of addresses, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def name(self, address: str) -> str:
        """The name of an address, or the address."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = _ask(address)
        return found

    def text(self, marked: str) -> str:
        """A listing with its marked addresses as names."""
        return _MARKED.sub(lambda match: self.name(match[1]), marked)


def _ask(address: str) -> str:
    try:
        name = socket.getnameinfo((address, 0), 0)[0]
    except OSError:
        return address
    return name if _NAME.fullmatch(name) else address
