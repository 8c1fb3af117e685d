"""Imports point downwards: a room imports only itself and the rooms before it in docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "userfw"

# The shell may use sockets, clocks, files and asyncio; the core may not (DESIGN.md: pure core, thin shell).
PURE_UP_TO = "ruleset"
TEXT_OF_ADDRESSES = {"AF_INET", "AF_INET6", "inet_pton", "inet_ntop", "inet_aton"}  # pure functions that socket happens to hold
IMPURE = {"asyncio", "socket", "select", "selectors", "time", "threading", "subprocess", "uvloop", "pyroute2"}


def rooms() -> list[str]:
    """The order, read from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    names: list[str] = []
    for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.M):
        names += re.findall(r"`(\w+)`", row)
    return names


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import of a .py or .pxd file."""
    if path.suffix == ".pxd":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r"\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", line)
            if found:
                yield number, found[1] or found[2]
        return
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.module == "socket" and {alias.name for alias in node.names} <= TEXT_OF_ADDRESSES:
                continue
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""
            if node.module == "userfw":
                for alias in node.names:
                    yield node.lineno, f"userfw.{alias.name}"


FILES = sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".pxd"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def test_every_room_is_in_the_table() -> None:
    present = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert present == set(rooms())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    order = rooms()
    room = room_of(path)
    if not room:
        return
    rank = order.index(room)
    for line, module in imports(path):
        if module.startswith("userfw."):
            target = module.split(".")[1]
            if target in order:
                assert order.index(target) <= rank, f"{path}:{line}: {room} imports {target}, which is above it"
        elif rank <= order.index(PURE_UP_TO):
            reason = f"{room} is pure, {module} is not (of socket only {TEXT_OF_ADDRESSES})"
            assert module.split(".")[0] not in IMPURE, f"{path}:{line}: {reason}"


def test_scapy_is_for_tests_only() -> None:
    for path in FILES:
        for line, module in imports(path):
            assert module.split(".")[0] != "scapy", f"{path}:{line}: scapy (GPL-2.0) must not be imported by the package"
