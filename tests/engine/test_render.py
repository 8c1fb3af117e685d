"""Every expression line of the corpus: built, rendered, the same text."""

from __future__ import annotations

import engine_corpus as corpus
import pytest

from userfw.engine import expressions as ex

pytestmark = pytest.mark.skipif(not corpus.FOLDER.is_dir(), reason=f"no conformance data in {corpus.FOLDER}")


def test_every_line_of_the_corpus() -> None:
    wrong = []
    count = 0
    for line in corpus.lines():
        count += 1
        rendered = corpus.build(line).render()
        if rendered.replace(" ", "") != line.replace(" ", ""):
            wrong.append((line, rendered))
    assert not wrong
    assert count > 900


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (ex.ImmediateVerdict("jump", "c"), "[ immediate reg 0 jump -> c ]"),
        (ex.Socket(1, "cgroupv2", 2), "[ socket load cgroupv2 => reg 1 level 2 ]"),
        (ex.FlowOffload("f"), "[ flow_offload flowtable f ]"),
        (ex.Numgen(1, "random", 10), "[ numgen reg 1 = random mod 10 ]"),
        (
            ex.Dynset("update", 1, "s", timeout=5000, exprs=(ex.Counter(),)),
            "[ dynset update reg_key 1 set s timeout 5000ms expr [ counter pkts 0 bytes 0 ] ]",
        ),
    ],
)
def test_lines_that_the_corpus_lacks(expr: ex.Cmp, text: str) -> None:
    assert expr.render() == text
