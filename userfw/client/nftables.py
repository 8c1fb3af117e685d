"""`Nftables`: the methods of libnftables' own Python module, on userfw's ruleset.

Programs written for `import nftables` work with `from userfw.client import nftables`. The ruleset is the daemon's
(`Nftables()`, `Nftables(socket="…")`), or one of this process, without daemon or privileges (`Nftables(private=True)`,
`Nftables(manager=…)`).

Source: libnftables(3), and the interface of nftables' python/nftables.py.
"""

from __future__ import annotations

import json
import os
from json import dumps
from typing import TYPE_CHECKING, Any, ClassVar, overload

from userfw.client.runner import Answer, DaemonRunner, PrivateRunner, Runner
from userfw.ruleset.options import Options

if TYPE_CHECKING:
    from userfw.ruleset.manager import RulesetManager

NFTABLES_VERSION = "0.1"
"""That of libnftables' Python module, which programs may ask for."""

Value = int | str | list[int | str] | tuple[int | str, ...]


class SchemaValidator:
    """What `json_validate` asks; the parser itself is the schema."""

    def validate(self, json: Any) -> None:
        """ValueError with what is wrong."""
        from userfw.nft.json_in import parse_json
        from userfw.nft.location import NftErrors

        if not isinstance(json, dict) or not isinstance(json.get("nftables"), list):
            raise ValueError("a document is an object with a list 'nftables'")
        try:
            parse_json(dumps(json))
        except NftErrors as problems:
            raise ValueError(str(problems)) from None


class Nftables:
    """A context of libnftables. Not for several threads at once."""

    input_flags: ClassVar[dict[str, int]] = {"no-dns": 0x1, "json": 0x2}

    debug_flags: ClassVar[dict[str, int]] = {
        "scanner": 0x1,
        "parser": 0x2,
        "eval": 0x4,
        "netlink": 0x8,
        "mnl": 0x10,
        "proto-ctx": 0x20,
        "segtree": 0x40,
    }

    output_flags: ClassVar[dict[str, int]] = {
        "reversedns": 1 << 0,
        "service": 1 << 1,
        "stateless": 1 << 2,
        "handle": 1 << 3,
        "json": 1 << 4,
        "echo": 1 << 5,
        "guid": 1 << 6,
        "numeric_proto": 1 << 7,
        "numeric_prio": 1 << 8,
        "numeric_symbol": 1 << 9,
        "numeric_time": 1 << 10,
        "terse": 1 << 11,
    }

    def __init__(
        self,
        sofile: str | None = None,
        *,
        socket: str | None = None,
        private: bool = False,
        manager: RulesetManager | None = None,
        runner: Runner | None = None,
    ) -> None:
        """ControlError if there is no daemon at `socket` (default: $USERFW_SOCKET or /run/userfw/control.sock).

        `sofile`: libnftables' file, for programs that name it; there is none here, so it means nothing.
        """
        if runner is None:
            runner = PrivateRunner(manager) if private or manager is not None else DaemonRunner(socket)
        self.runner = runner
        self._output = 0
        self._input = 0
        self._debug = 0
        self._dry_run = False
        self._include_path: list[str] = ["/etc"]
        self._vars: dict[str, str] = {}
        self._validator: Any = None

    def close(self) -> None:
        """End the connection to the daemon."""
        self.runner.__exit__(None, None, None)

    # --- running commands

    @overload
    def cmd(self, cmdline: str) -> tuple[int, str, str]: ...

    @overload
    def cmd(self, cmdline: bytes) -> tuple[int, bytes, bytes]: ...

    def cmd(self, cmdline: str | bytes) -> tuple[int, Any, Any]:
        """Run commands in nft's language (or JSON, if JSON is switched on): (status, output, error), text or bytes as they came."""
        if isinstance(cmdline, str):
            return self._run(cmdline, "")
        status, output, error = self._run(cmdline.decode("utf-8", "surrogateescape"), "")
        return status, output.encode("utf-8", "surrogateescape"), error.encode("utf-8", "surrogateescape")

    def cmd_from_file(self, filename: str) -> tuple[int, str, str]:
        """Run the commands of a file: (status, output, error)."""
        try:
            with open(filename, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            return -1, "", f'internal:0:0-0: Error: Could not open file "{filename}": {error.strerror}\n\n\n'
        return self._run(text, filename)

    def json_cmd(self, json_root: Any) -> tuple[int, Any, str]:
        """Run a JSON document given as a structure: (status, output structure or "", error)."""
        before = self._output
        self._output |= self.output_flags["json"]
        try:
            status, output, error = self.cmd(json.dumps(json_root))
        finally:
            self._output = before
        return status, json.loads(output) if output else output, error

    def json_validate(self, json_root: Any) -> bool:
        """Whether a structure is a document of commands. Raises ValueError with what is wrong, as jsonschema would."""
        if self._validator is None:
            self._validator = SchemaValidator()
        self._validator.validate(json_root)
        return True

    def _run(self, text: str, filename: str) -> tuple[int, str, str]:
        answer: Answer = self.runner.run(text, self._options(filename))
        return (-1 if answer.status else 0), answer.output, answer.errors

    def _options(self, filename: str) -> Options:
        on = {name for name, bit in self.output_flags.items() if self._output & bit}
        return Options(
            filename=filename,
            include_path=(*([os.path.dirname(filename) or "."] if filename else []), *self._include_path),
            defines=tuple(self._vars.items()),
            check=self._dry_run,
            echo="echo" in on,
            json="json" in on,
            json_input=bool(self._input & self.input_flags["json"]),
            handles="handle" in on,
            stateless="stateless" in on,
            terse="terse" in on,
            service="service" in on,
            reversedns="reversedns" in on,
            guid="guid" in on,
            numeric_priority="numeric_prio" in on,
            numeric_protocol="numeric_proto" in on,
            numeric_symbol="numeric_symbol" in on,
            numeric_time="numeric_time" in on,
            debug=tuple(name for name, bit in self.debug_flags.items() if self._debug & bit),
        )

    # --- output

    def _get(self, name: str) -> bool:
        return bool(self._output & self.output_flags[name])

    def _set(self, name: str, value: bool) -> bool:
        before = self._get(name)
        bit = self.output_flags[name]
        self._output = self._output | bit if value else self._output & ~bit
        return before

    def get_reversedns_output(self) -> bool:
        """Whether addresses are translated to names."""
        return self._get("reversedns")

    def set_reversedns_output(self, value: bool) -> bool:
        """Switch translation of addresses to names; returns the value before."""
        return self._set("reversedns", value)

    def get_service_output(self) -> bool:
        """Whether ports are translated to service names."""
        return self._get("service")

    def set_service_output(self, value: bool) -> bool:
        """Switch translation of ports to service names; returns the value before."""
        return self._set("service", value)

    def get_stateless_output(self) -> bool:
        """Whether state is left out of listings."""
        return self._get("stateless")

    def set_stateless_output(self, value: bool) -> bool:
        """Switch listings without state; returns the value before."""
        return self._set("stateless", value)

    def get_handle_output(self) -> bool:
        """Whether handles are listed."""
        return self._get("handle")

    def set_handle_output(self, value: bool) -> bool:
        """Switch the listing of handles; returns the value before."""
        return self._set("handle", value)

    def get_json_output(self) -> bool:
        """Whether output is JSON."""
        return self._get("json")

    def set_json_output(self, value: bool) -> bool:
        """Switch JSON output (and input); returns the value before."""
        return self._set("json", value)

    def get_echo_output(self) -> bool:
        """Whether changes are echoed."""
        return self._get("echo")

    def set_echo_output(self, value: bool) -> bool:
        """Switch echo; returns the value before."""
        return self._set("echo", value)

    def get_guid_output(self) -> bool:
        """Whether user and group ids are translated to names."""
        return self._get("guid")

    def set_guid_output(self, value: bool) -> bool:
        """Switch names of users and groups; returns the value before."""
        return self._set("guid", value)

    def get_numeric_proto_output(self) -> bool:
        """Whether layer 4 protocols are numbers."""
        return self._get("numeric_proto")

    def set_numeric_proto_output(self, value: bool) -> bool:
        """Switch numeric protocols; returns the value before."""
        return self._set("numeric_proto", value)

    def get_numeric_prio_output(self) -> bool:
        """Whether priorities are numbers."""
        return self._get("numeric_prio")

    def set_numeric_prio_output(self, value: bool) -> bool:
        """Switch numeric priorities; returns the value before."""
        return self._set("numeric_prio", value)

    def get_numeric_symbol_output(self) -> bool:
        """Whether symbolic values are numbers."""
        return self._get("numeric_symbol")

    def set_numeric_symbol_output(self, value: bool) -> bool:
        """Switch numeric symbols; returns the value before."""
        return self._set("numeric_symbol", value)

    def get_numeric_time_output(self) -> bool:
        """Whether times are numbers."""
        return self._get("numeric_time")

    def set_numeric_time_output(self, value: bool) -> bool:
        """Switch numeric times; returns the value before."""
        return self._set("numeric_time", value)

    def get_terse_output(self) -> bool:
        """Whether the contents of sets are left out."""
        return self._get("terse")

    def set_terse_output(self, value: bool) -> bool:
        """Switch listings without elements; returns the value before."""
        return self._set("terse", value)

    # --- input, debugging, dry run

    def get_input_flags(self) -> list[str]:
        """The names of the input flags that are set."""
        return [name for name, bit in self.input_flags.items() if self._input & bit]

    def set_input_flags(self, values: Value) -> list[str]:
        """Set the input flags (names, numbers, or a list of them); returns those that were set before."""
        before = self.get_input_flags()
        self._input = _bits(values, self.input_flags)
        return before

    def get_debug(self) -> list[str]:
        """The names of the active debug levels."""
        return [name for name, bit in self.debug_flags.items() if self._debug & bit]

    def set_debug(self, values: Value) -> list[str]:
        """Set the debug levels (names, numbers, or a list of them); returns those that were active before."""
        before = self.get_debug()
        self._debug = _bits(values, self.debug_flags)
        return before

    def get_dry_run(self) -> bool:
        """Whether nothing is committed."""
        return self._dry_run

    def set_dry_run(self, onoff: bool) -> None:
        """Check only."""
        self._dry_run = bool(onoff)

    # --- includes and variables

    def add_include_path(self, path: str) -> None:
        """Search `path` for included files too. ValueError for an empty path."""
        if not path:
            raise ValueError("an include path is not empty")
        self._include_path.append(path)

    def clear_include_paths(self) -> None:
        """Forget all include paths, the default one too."""
        self._include_path.clear()

    def add_var(self, var: str) -> None:
        """Define a variable, `name=value`. ValueError if it is none."""
        name, equals, value = var.partition("=")
        if not equals or not name:
            raise ValueError(f"not a definition: {var!r}")
        self._vars[name] = value

    def clear_vars(self) -> None:
        """Forget all variables."""
        self._vars.clear()


def _bits(values: Value, names: dict[str, int]) -> int:
    """The bits of names and numbers. ValueError for a name that does not exist."""
    if isinstance(values, (str, int)):
        values = [values]
    result = 0
    for value in values:
        if isinstance(value, str):
            if value not in names:
                raise ValueError(f"Invalid argument: {value!r}")
            result |= names[value]
        else:
            if value < 0 or value & ~sum(names.values()):
                raise ValueError(f"Invalid argument: {value}")
            result |= value
    return result

