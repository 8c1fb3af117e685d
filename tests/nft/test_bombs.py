"""Short inputs that would become large ones, or numbers that fit nowhere: an error with its place, soon, and little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

BASE = """
table inet t {
  set s { type ipv4_addr; flags timeout
  }
  chain c { type filter hook input priority 0
  }
}
"""
TENFOLD = "define a0 = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }\n" + "".join(
    f"define a{i} = {{ {', '.join([f'$a{i - 1}'] * 10)} }}\n" for i in range(1, 9)
)
JUMPS = "".join(f"add chain inet t x{i}\n" for i in range(60)) + "".join(
    f"add rule inet t x{i} jump x{j}\n" for i in range(60) for j in range(i + 1, min(i + 15, 60))
)
DEEP = "1"
for _ in range(2000):
    DEEP = f'{{"|":[{DEEP},1]}}'
JSON_RULE = '{"nftables":[{"add":{"rule":{"family":"inet","table":"t","chain":"c","expr":%s}}}]}'
JSON_MATCH = JSON_RULE % '[{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":%s}}]'
BOMBS = {
    TENFOLD + "add rule inet t c tcp dport $a8 accept\n": "variables stand for too many elements",
    TENFOLD.replace("a5 =", "a5 = { 1 }\ndefine z =") + "add rule inet t c tcp dport $a4 accept\n" * 60: "too many elements",
    JUMPS + "add rule inet t c jump x0\n": "Too many links",
    "add rule inet t c tcp dport " + "9" * 200_000: "200000 digits",
    "add rule inet t c tcp dport 0x" + "f" * 200_000: "200002 digits",
    "add rule inet t c meta mark set 1 << 4000000000": "Left shift of 4000000000 bits is undefined for type of 32 bits width",
    "add rule inet t c meta mark set 1 << 32": "Left shift of 32 bits is undefined",
    "add rule inet t c meta mark set " + " | ".join(["1"] * 50_000): "too many operators",
    "add rule inet t c meta mark set " + "(1 | " * 5000: "nested too deeply",
    "add rule inet t c " + "jump { " * 200: "too many levels of nesting",
    "add rule inet t c tcp dport " + "{ " * 500 + "1" + " }" * 500: "nested too deeply",
    "{" * 100_000: "Invalid JSON",
    "add set inet t z { type ipv4_addr; timeout 99999999d; }": "Numerical result out of range",
    "add element inet t s { 1.1.1.1 timeout 213504d }": "Numerical result out of range",
    "add rule inet t c update @s { ip saddr timeout 213504d }": "Numerical result out of range",
    "add rule inet t c meter m { ip saddr timeout 213504d counter }": "Numerical result out of range",
    "add set inet t z { typeof " + " . ".join(["ip saddr"] * 1000) + "; }": "too long",
    "[" * 200_000: "unexpected '['",
    '{"nftables":' * 50_000: "Invalid JSON",
    JSON_MATCH % DEEP: "Invalid JSON",
    JSON_MATCH % ("9" * 5000): "Invalid JSON",
    JSON_MATCH % "1e400": "expected",
    JSON_MATCH % "NaN": "expected",
    JSON_MATCH % ("[" * 900 + "]" * 900): "",
    JSON_RULE % ('[{"meter":{"name":"m","key":' + '{"elem":{"val":' * 400 + "1" + "}}" * 400 + ',"stmt":{"counter":null}}}]'): "",
}


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_it_is_refused_soon(text: str) -> None:
    manager = RulesetManager()
    assert manager.execute(BASE).status == 0
    tracemalloc.start()
    begin = time.process_time()
    try:
        result = manager.execute(text, Options(json=text[0] == "{"))
        assert time.process_time() - begin < 20  # traced; most take milliseconds
        assert tracemalloc.get_traced_memory()[1] < 100_000_000 + 100 * len(text)
    finally:
        tracemalloc.stop()
    assert result.status == 1 and BOMBS[text] in result.errors, result.errors[:200]
    assert len(result.errors) < 10 * len(text) + 100_000


def test_what_is_large_and_legal_is_taken() -> None:
    manager = RulesetManager()
    elements = ", ".join(f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(20_000))
    text = f"define nets = {{ {elements} }}\n" + BASE
    text += "".join(f"add rule inet t c ip saddr $nets tcp dport {port} accept\n" for port in range(3))
    assert manager.execute(text).errors == ""
    assert manager.execute("add element inet t s { 1.1.1.1 timeout 213503d }").errors == ""
