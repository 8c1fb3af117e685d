"""An interpreter written from the payload blocks alone agrees with the engine on random packets on the same packets.

The seed is fixed; ``python tests/oracle/oracle_compare.py --packets 400 --seed 7`` goes further.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "nft"))
import corpus
import oracle_compare as compare

pytestmark = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")

RUN = 2514
"""Blocks that can be run, of 2,527."""


@pytest.fixture(scope="module")
def tally() -> compare.Tally:
    return compare.total(compare.run(packets=8))


def test_every_block_that_can_be_run_agrees(tally: compare.Tally) -> None:
    assert tally.failures == []
    assert tally.agree == tally.run


def test_the_number_does_not_drop(tally: compare.Tally) -> None:
    assert tally.blocks == 2527
    assert tally.run >= RUN, compare.summary(tally)
    assert tally.run + sum(tally.reasons.values()) == tally.blocks
    assert tally.packets > 7 * RUN


def test_the_generator_hits(tally: compare.Tally) -> None:
    """Rules that never match would agree always."""
    assert tally.acted > 0.4 * tally.packets


def test_the_interpreter_knows_nothing_of_userfw() -> None:
    for name in ("skb", "program", "machine", "loads", "tunnels", "writes", "effects", "surroundings", "wants", "frames"):
        assert "userfw." not in (Path(__file__).parent / f"oracle_{name}.py").read_text(), name


def test_a_wrong_verdict_is_seen() -> None:
    """The comparison can fail: a block whose constant is not that of the rule."""
    test = corpus.read_test_file(corpus.ROOT / "nft-py" / "ip" / "ip.t")
    test.lines = [line for line in test.lines if line.kind == "rule" and line.text == "ip protocol tcp"]
    block = corpus.payload_block(test, "ip", "ip protocol tcp")
    assert block is not None
    assert compare.run_file(test, 20).failures == []
    block.lines[-1] = block.lines[-1].replace("0x00000006", "0x00000011")
    assert compare.run_file(test, 20).failures != []


def test_checksums_and_hashes_of_the_interpreter() -> None:
    """Known answers: RFC 1071's example, crc32c of RFC 3720 (B.4), jhash of the kernel's own test vectors."""
    import oracle_loads as loads
    import oracle_writes as writes

    assert writes.fold(writes.words_sum(bytes.fromhex("0001f203f4f5f6f7"))) == 0x220D
    assert writes.crc32c(bytes(32)) == 0x8A9136AA
    assert loads.jenkins(b"", 0) == 0xDEADBEEF
