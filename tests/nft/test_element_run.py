"""Runs of plain elements: the same nodes, values and errors as the parser and the checker give one by one."""

import ipaddress
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.nft.check import NothingThere, check_commands
from userfw.nft.element_run import FEW, ElementRun, take_run
from userfw.nft.json_expr_out import elements_json
from userfw.nft.location import Location, NftErrors, Source
from userfw.nft.parser import parse
from userfw.nft.printer_expr import PLAIN, element_texts
from userfw.nft.syntax import Command, SetBlock, SetElemExpr


def quads(count: int, step: int = 1) -> list[str]:
    return [str(ipaddress.IPv4Address(0x0A000000 + number * step)) for number in range(count)]


def declared(elements: str, kind: str = "ipv4_addr", more: str = "flags interval;") -> str:
    return f"add set ip t s {{ type {kind}; {more} elements = {{ {elements} }}; }}"


def block(text: str) -> SetBlock:
    node = parse(text)[0].node
    assert isinstance(node, SetBlock)
    return node


def checked(commands: list[Command]) -> SetBlock:
    node = check_commands(commands, NothingThere())[0].node
    assert isinstance(node, SetBlock)
    return node


def slowly(text: str) -> list[Command]:
    """The commands with nodes instead of runs: a comment at the last element keeps the run away."""
    commands = parse(text)
    for command in commands:
        assert isinstance(command.node, SetBlock)
        command.node.elements = list(command.node.elements)
    return commands


def places(elements: list[SetElemExpr]) -> list[tuple[int, int]]:
    return [(element.loc.start, element.loc.end) for element in elements]


V4 = st.integers(0, 2**32 - 1)
V6 = st.integers(0, 2**128 - 1)


def v4(value: int) -> str:
    return str(ipaddress.IPv4Address(value))


def v6(value: int) -> str:
    return str(ipaddress.IPv6Address(value))


def spelled(address: st.SearchStrategy[int], text: object, width: int) -> st.SearchStrategy[str]:
    one: st.SearchStrategy[str] = address.map(text)  # type: ignore[arg-type]
    prefix = st.tuples(one, st.integers(0, width)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    both = st.tuples(address, address).map(sorted).map(lambda pair: f"{text(pair[0])}-{text(pair[1])}")  # type: ignore[operator]
    return st.one_of(one, prefix, both)


MARKS = st.sampled_from([", ", ",\n\t", " ,  ", ",\n# a comment, with a comma }\n ", ",\t"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["ipv4_addr", "ipv6_addr", "inet_service"]), st.data())
def test_the_nodes_of_a_run_are_those_of_the_parser(kind: str, data: st.DataObject) -> None:
    ports = st.integers(0, 65535).map(str)
    one = {"ipv4_addr": spelled(V4, v4, 32), "ipv6_addr": spelled(V6, v6, 128), "inet_service": ports}[kind]
    words = data.draw(st.lists(one, min_size=FEW, max_size=FEW + 20))
    text = declared(data.draw(MARKS).join(words), kind, "flags interval; auto-merge;")
    run = block(text).elements
    assert isinstance(run, ElementRun)
    nodes = [block(declared(word, kind)).elements[0] for word in words]
    assert list(run) == nodes
    assert [text[start:end] for start, end in places(list(run))] == words
    assert list(checked(parse(text)).elements) == list(checked(slowly(text)).elements)


@pytest.mark.parametrize("merge", [False, True])
def test_intervals_are_sorted_and_merged_as_one_by_one(merge: bool) -> None:
    rng = random.Random(5)
    for _ in range(20):
        spans = [(low := rng.randrange(20_000), low + rng.randrange(40)) for _ in range(FEW)]
        words = [v4(low) if low == high else f"{v4(low)}-{v4(high)}" for low, high in spans]
        text = declared(", ".join(words), more="flags interval;" + (" auto-merge;" if merge else ""))
        try:
            found: object = list(checked(parse(text)).elements)
        except NftErrors as problem:
            found = str(problem)
        try:
            wanted: object = list(checked(slowly(text)).elements)
        except NftErrors as problem:
            wanted = str(problem)
        assert found == wanted


def test_repeated_elements_of_an_interval_set_are_one() -> None:
    words = quads(FEW) * 2
    assert len(checked(parse(declared(", ".join(words)))).elements) == FEW


@pytest.mark.parametrize(
    "odd",
    ["010.0.0.1", "10.0.0.256", "10.0.0.1/33", "10.0.0.9-10.0.0.1", "$x", "10.0.0.1 comment \"a\"", "10.0.0.1 . 80", "0x10", "*",
     "10.0.0.1/08", "1:2", "10s", "1::2::3", "fe80::1%eth0", "10.0.0", "@s", "{ 10.0.0.1 }"],
)  # fmt: skip
def test_anything_odd_ends_a_run_in_front_of_it(odd: str) -> None:
    words = quads(FEW)
    text = ", ".join([*words, odd, *quads(3)]) + " }"
    run, pos = take_run(Source("x", text), text.encode(), 0)
    assert len(run) == FEW
    assert text[pos:].lstrip().startswith(odd)


def test_a_run_ends_where_its_text_does() -> None:
    for text in ("10.0.0.1", "10.0.0.1,", "10.0.0.1 ", "10.", "", "::", "1-", "10.0.0.1/"):
        run, pos = take_run(Source("x", text), text.encode(), 0)
        assert pos in (0, len("10.0.0.1,")) and len(run) == (pos > 0)


def test_errors_point_at_the_element() -> None:
    words = quads(FEW)
    words[40] = "10.0.0.300"
    with pytest.raises(NftErrors) as caught:
        checked(parse(declared(",\n".join(words))))
    assert caught.value.errors[0].loc.line == 41
    text = declared(", ".join([*quads(FEW), "10.0.0.5-10.0.0.7"]))
    with pytest.raises(NftErrors, match="conflicting intervals") as caught:
        checked(parse(text))
    assert caught.value.errors[0].loc.line == 1


def test_values_beyond_the_type_are_refused_with_their_place() -> None:
    words = [str(number) for number in range(FEW)]
    words[50] = "65536"
    with pytest.raises(NftErrors, match="exceeds valid range") as caught:
        checked(parse(declared(",\n".join(words), "inet_service", "")))
    assert caught.value.errors[0].loc.line == 51


def test_text_that_is_not_latin_keeps_its_places() -> None:
    text = "# \N{SNOWMAN} \U0001f600\n" + declared(", # \N{SNOWMAN}\n".join(quads(FEW)))
    elements = block(text).elements
    assert isinstance(elements, ElementRun)
    assert text[slice(*places(list(elements))[7])] == "10.0.0.7"


def test_included_files_of_the_same_length_are_not_confused(tmp_path: object) -> None:
    import pathlib

    folder = pathlib.Path(str(tmp_path))
    one, two = ", ".join(quads(FEW)), ", ".join(word.replace("10.", "20.", 1) for word in quads(FEW))
    (folder / "a.nft").write_text(declared(one) + "\n")
    (folder / "b.nft").write_text(declared(two) + "\n")
    commands = parse(f'include "{folder}/a.nft"\ninclude "{folder}/b.nft"\n')
    first = [command.node.elements[0] for command in commands if isinstance(command.node, SetBlock)]
    assert [str(element.key.name) for element in first] == ["10.0.0.0", "20.0.0.0"]  # type: ignore[attr-defined]


def test_a_run_is_a_sequence() -> None:
    run = block(declared(", ".join(quads(FEW)))).elements
    assert isinstance(run, ElementRun)
    assert len(run) == FEW and run[-1] == list(run)[-1] and run[:2] == list(run)[:2] and run == list(run)
    assert isinstance(run[0].loc, Location)
    with pytest.raises(IndexError):
        run[FEW]


@settings(max_examples=30, deadline=None)
@given(st.lists(spelled(V4, v4, 32), min_size=FEW, max_size=FEW + 5))
def test_text_and_json_of_a_run_are_those_of_its_nodes(words: list[str]) -> None:
    found = checked(parse(declared(", ".join(words), more="flags interval; auto-merge;"))).elements
    assert isinstance(found, ElementRun)
    nodes = list(found)
    assert element_texts(found, PLAIN) == element_texts(nodes, PLAIN)
    assert elements_json(found, PLAIN) == elements_json(nodes, PLAIN)
