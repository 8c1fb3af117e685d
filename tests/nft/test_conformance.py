"""The nft corpora hold, in whole: what ``make conformance`` prints, as a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import conformance
import corpus

pytestmark = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")


def failures(row: conformance.Row) -> list[str]:
    return [f"{column}: {failure}" for column in conformance.COLUMNS for failure in row[column].failures]


@pytest.mark.parametrize("test", corpus.test_files() if corpus.available() else [], ids=lambda test: test.name)
def test_nft_py(test: corpus.TestFile) -> None:
    assert failures(conformance.run_file(test)) == []


def test_features_bogons_monitor() -> None:
    rows = conformance.run_texts()
    assert [failure for row in rows.values() for failure in failures(row)] == []
    assert [rows[name]["judged"].total for name in rows] == [33, 99, 62]


def test_the_corpus_is_whole() -> None:
    tests = corpus.test_files()
    rules = [line for test in tests for line in test.lines if line.kind == "rule"]
    assert len(rules) > 1700
    assert sum(len(test.json) for test in tests) == 1762
