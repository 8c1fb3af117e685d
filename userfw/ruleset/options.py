"""How one run of commands reads its input and writes its answers; the switches of `nft` as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from userfw.nft.datatype import DEFAULT_NAMES, Names, Output
from userfw.nft.printer_expr import Style


@dataclass(frozen=True, slots=True)
class Options:
    """The switches; names follow nft's long options.

    `client` identifies the connection (for owned tables), `pid` and `process` are what `# new generation` tells.
    `defines` and `include_path` are for the parser. `filename` is what errors call the input; empty means a command line.
    """

    filename: str = ""
    include_path: tuple[str, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()
    check: bool = False
    echo: bool = False
    json: bool = False
    json_input: bool = False
    handles: bool = False
    stateless: bool = False
    terse: bool = False
    service: bool = False
    reversedns: bool = False
    guid: bool = False
    numeric: bool = False
    numeric_priority: bool = False
    numeric_protocol: bool = False
    numeric_symbol: bool = False
    numeric_time: bool = False
    optimize: bool = False
    debug: tuple[str, ...] = ()
    pid: int = 0
    process: str = "nft"
    client: Any = field(default=None, compare=False)

    def style(self, names: Names = DEFAULT_NAMES) -> Style:
        """The printer's style."""
        out = Output(
            numeric_proto=self.numeric or self.numeric_protocol,
            numeric_symbol=self.numeric or self.numeric_symbol,
            numeric_time=self.numeric or self.numeric_time,
            numeric_prio=self.numeric or self.numeric_priority,
            service=self.service and not self.numeric,
            guid=self.guid,
            names=names,
            marked=self.reversedns and not self.json,
        )
        return Style(out, stateless=self.stateless, handles=self.handles, terse=self.terse)

    def to_message(self) -> dict[str, Any]:
        """What travels over the control socket: only what differs from the defaults."""
        return {name: value for name, value in asdict(self).items() if name != "client" and value != getattr(_DEFAULT, name)}

    @classmethod
    def from_message(cls, message: dict[str, Any], client: Any = None) -> Options:
        """The options of a message. ValueError names an option or a type that does not exist."""
        known = {entry.name: entry for entry in fields(cls) if entry.name != "client"}
        values: dict[str, Any] = {}
        for name, value in message.items():
            if name not in known:
                raise ValueError(f"unknown option {name!r}")
            default = getattr(_DEFAULT, name)
            if name == "defines":
                value = tuple((str(key), str(text)) for key, text in value)
            elif isinstance(default, tuple):
                value = tuple(str(item) for item in value)
            elif type(value) is not type(default):
                raise ValueError(f"option {name!r} takes a {type(default).__name__}")
            values[name] = value
        return cls(**values, client=client)


_DEFAULT = Options()
