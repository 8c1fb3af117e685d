"""What looks compiled is compiled: a function with C types that no .pxd declares would be a Python call on the packet path."""

import ast
import re
from collections.abc import Iterator
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


def compiled_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below `node` but what stands under `if not cython.compiled`."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "not cython.compiled"):
            yield child
            yield from compiled_nodes(child)


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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_literal_becomes_a_python_object(path: Path) -> None:
    """Cython keeps a literal beyond 31 bits as a Python int, and what is computed with it: use core.const.U32_MASK and the like."""
    found = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and mentions_c_types(function):
            for node in compiled_nodes(function):
                if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > 0x7FFFFFFF:
                    found.append(f"{path}:{node.lineno}: {node.value:#x} in {function.name}")
    assert not found, "\n".join(found)


def inner(function: ast.FunctionDef) -> tuple[bool, list[ast.FunctionDef | ast.Lambda]]:
    """Whether a function is a generator, and the functions that it makes."""
    made: list[ast.FunctionDef | ast.Lambda] = []
    generates, todo = False, list(function.body)
    while todo:
        node: ast.AST = todo.pop()
        generates |= isinstance(node, (ast.Yield, ast.YieldFrom))
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            made.append(node)
        else:
            todo += list(ast.iter_child_nodes(node))  # type: ignore[arg-type]
    return generates, made


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_scope_holds_a_function_that_holds_it(path: Path) -> None:
    """Nobody breaks such a cycle in compiled code: the scope and all that it refers to would stay for ever."""
    found = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            generates, made = inner(function)
            found += [
                f"{path}:{one.lineno}: in {function.name}" for one in made
                if generates or any(isinstance(n, ast.Name) and n.id == getattr(one, "name", "") for n in ast.walk(one))
            ]  # fmt: skip
    assert not found, "\n".join(found)
