"""The C-level twin of router/const.py says the same."""

import re
from pathlib import Path

from userfw.router import const


def test_twin_agrees() -> None:
    text = Path(const.__file__).with_suffix(".pxd").read_text()
    twin = {name: int(value, 0) for name, value in re.findall(r"^    (\w+) = (\S+)$", text, re.M)}
    assert twin == {name: value for name, value in vars(const).items() if name.isupper()}
