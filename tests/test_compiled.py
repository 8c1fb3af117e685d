"""What looks compiled is compiled: a function with C types that its .pxd does not declare would be a Python call on the packet path."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "userfw"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.with_suffix(".pxd").exists() and p.stem not in ("const", "drop"))


DECLARED = re.compile(r"(\w+)\s*\(")
# A method that overrides one declared in any .pxd takes over its C signature.
INHERITED = {name for p in PACKAGE.rglob("*.pxd") for name in DECLARED.findall(p.read_text())}


def mentions_c_types(function: ast.FunctionDef) -> bool:
    arguments = function.args
    annotations = [a.annotation for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return any("cython." in ast.unparse(a) for a in (*annotations, function.returns) if a is not None)


def is_python_only(function: ast.FunctionDef) -> bool:
    """Constructors, properties and functions with keyword-only arguments cannot be C functions."""
    return function.name.startswith("__") or bool(function.decorator_list) or bool(function.args.kwonlyargs)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_with_c_types_are_declared(path: Path) -> None:
    declared = set(DECLARED.findall(path.with_suffix(".pxd").read_text()))
    missing = []
    tree = ast.parse(path.read_text())
    for parent in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        for node in parent.body:
            if isinstance(node, ast.FunctionDef) and mentions_c_types(node) and not is_python_only(node):
                if node.name not in (declared if parent is tree else INHERITED):
                    missing.append(f"{path}:{node.lineno}: {node.name}")
    assert not missing, "not declared in the .pxd, so called as Python objects:\n" + "\n".join(missing)
