"""The C-level twins of const.py and drop.py say the same as the Python files."""

import re
from pathlib import Path

import pytest

from userfw.core import const, drop

CORE = Path(const.__file__).parent


def twin(path: Path) -> dict[str, int]:
    found = re.findall(r"^    (?:#define )?(\w+) (?:= )?([-\w]+?)(?:ULL|U)?$", path.read_text(), re.M)
    return {name: int(value, 0) for name, value in found if not value.isidentifier()}


@pytest.mark.parametrize(("module", "prefix"), [(const, ""), (drop, "DROP_")])
def test_twin_agrees(module: object, prefix: str) -> None:
    python = {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int) and name.startswith(prefix)
    }
    name = str(module.__name__).rsplit(".", 1)[-1]  # type: ignore[attr-defined]
    assert twin(CORE / f"{name}.pxd") == python


def test_every_reason_is_described_and_numbered() -> None:
    assert set(drop.DESCRIPTIONS) == set(drop.DropReason)
    for reason in drop.DropReason:
        assert getattr(drop, f"DROP_{reason.name}") == reason
    assert len(drop.DropReason) == drop.DROP_COUNT
