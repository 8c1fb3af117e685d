"""The C-level twin of conntrack's const.py says the same as the Python file."""

import re
from pathlib import Path

from userfw.conntrack import const


def test_twin_agrees() -> None:
    text = Path(const.__file__).with_suffix(".pxd").read_text()
    twin = {name: int(value) for name, value in re.findall(r"^    (\w+) = (\S+)$", text, re.M)}
    python = {name: value for name, value in vars(const).items() if name.isupper() and isinstance(value, int)}
    assert twin == python


def test_tcp_table_is_total() -> None:
    from userfw.conntrack.tcp_states import TABLE

    assert len(TABLE) == 2 * 6 * 10 and set(TABLE) <= set(range(12))
    none = [TABLE[(d * 6 + const.TCP_EV_NONE) * 10 + s] for d in range(2) for s in range(10)]
    assert set(none) == {const.TCP_MAX}
