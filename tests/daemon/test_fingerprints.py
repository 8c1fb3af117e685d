"""Where `osf` has its systems from."""

from __future__ import annotations

from pathlib import Path

import pytest

from userfw.daemon import fingerprints
from userfw.daemon.fingerprints import load_fingerprints

LINES = "# a comment\nS4:64:1:60:M*,S,T,N,W0:Linux:2.4::Linux 2.4\nnonsense\n8192:128:0:44:M*:Windows:98::Windows 98\n"


def test_a_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "pf.os").write_text(LINES)
    found = load_fingerprints(str(tmp_path / "pf.os"))
    assert found is not None and [len(part) for part in found.by_df] == [1, 1]
    with pytest.raises(ValueError, match=r"daemon\.osf_fingerprints: .*No such file"):
        load_fingerprints(str(tmp_path / "none"))


def test_the_first_of_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "PLACES", (str(tmp_path / "none"), str(tmp_path / "pf.os")))
    assert load_fingerprints(None) is None
    (tmp_path / "pf.os").write_text(LINES)
    assert load_fingerprints(None) is not None
