"""The C-level twin of engine/const.py says the same as the Python file."""

import re
from pathlib import Path

from userfw.engine import const


def test_twin_agrees() -> None:
    text = Path(const.__file__).with_suffix(".pxd").read_text()
    twin = {name: int(value, 0) for name, value in re.findall(r"^    (\w+) = (\S+)$", text, re.M)}
    twin |= {name: int(value, 0) for name, value in re.findall(r"^    #define (\w+) (0x\w+?)U(?:LL)?$", text, re.M)}
    assert twin == {name: value for name, value in vars(const).items() if name.isupper() and isinstance(value, int)}
