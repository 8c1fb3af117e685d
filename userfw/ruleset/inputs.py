"""Input of a run: text, and the files that it includes.

Laws:
- Files are read where the user is. A client that talks to a daemon reads them itself (`collect`) and sends them along;
  the daemon's parser then sees those files only (`files`), never its own file system.
- Whatever is wrong with a text is `NftErrors`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from userfw.nft.location import Location, NftErrors, Source
from userfw.nft.parser import Parser
from userfw.nft.parser_base import TooManyErrors
from userfw.nft.syntax import Command
from userfw.ruleset.options import Options


class _Recording(Parser):
    """Reads files as nft does and remembers them by the pattern that named them."""

    seen: dict[str, list[tuple[str, str]]]

    def _matches(self, pattern: str, loc: Location) -> list[str]:
        found = super()._matches(pattern, loc)
        self.seen.setdefault(pattern, [])
        self._pattern = pattern
        return found

    def _read(self, path: str, loc: Location) -> Source:
        source = super()._read(path, loc)
        self.seen[self._pattern].append((path, source.text))
        return source


class _Given(Parser):
    """Knows only the files that were sent along."""

    given: Mapping[str, list[tuple[str, str]]]
    """By the pattern of the include statement."""

    def _matches(self, pattern: str, loc: Location) -> list[str]:
        found = self.given.get(pattern)
        if found is None:
            raise self.fail(f'File not found: "{pattern}"', loc)
        self._texts = dict(found)
        return [path for path, _ in found]

    def _read(self, path: str, loc: Location) -> Source:
        return Source(path, self._texts[path], included_from=loc)


def _whole(text: str, options: Options) -> str:
    """The text as nft reads it: a line of commands ends in a newline, a file as it ends."""
    return text if options.filename else f"{text}\n"


def collect(text: str, options: Options) -> dict[str, list[tuple[str, str]]]:
    """The files that a text includes, for the daemon: pattern to paths and texts. Errors are left to the daemon to find."""
    if "include" not in text:
        return {}
    seen: dict[str, list[tuple[str, str]]] = {}

    class Collector(_Recording):
        pass

    Collector.seen = seen
    parser = Collector(Source(options.filename or "<cmdline>", _whole(text, options)), options.include_path, dict(options.defines))
    with contextlib.suppress(TooManyErrors, RecursionError):
        parser.parse_commands()
    return seen


def parse_text(text: str, options: Options, files: Mapping[str, list[tuple[str, str]]] | None = None) -> list[Command]:
    """The commands of a text in nft's language."""
    from userfw.nft.parser import parse

    name, text = options.filename or "<cmdline>", _whole(text, options)
    if files is None:
        return parse(text, filename=name, include_path=options.include_path, defines=dict(options.defines))

    parser = _Given(Source(name, text), (), dict(options.defines))
    parser.given = files
    commands: list[Command] = []
    try:
        with contextlib.suppress(TooManyErrors):
            commands = parser.parse_commands()
    except RecursionError:
        parser.errors.append(parser.fail("nested too deeply"))
    if parser.errors:
        raise NftErrors(parser.errors)
    return commands


def parse_input(text: str, options: Options, files: Mapping[str, Any] | None = None) -> list[Command]:
    """The commands of a text: JSON where the options allow it and the text looks like it, else nft's language."""
    if (options.json or options.json_input) and text.lstrip()[:1] == "{":
        from userfw.nft.json_in import parse_json

        return parse_json(text)
    return parse_text(text, options, files)


def default_include_path() -> tuple[str, ...]:
    """Where `include "name"` looks besides the folder of the file itself."""
    return ("/etc",)

