"""The unit in `systemd/`, run by systemd as process 1 of a container: `under_systemd.py` is what runs there."""

import re

import pytest
from lab import systemd


@pytest.mark.timeout(400)
def test_the_unit_under_systemd() -> None:
    """Start, traffic, permissions, reload, kill, hang, restart, drop-ins, stop."""
    if why := systemd.missing():
        pytest.skip(why)
    tests = f"{systemd.interpreter()} -m pytest -q -c netns-tests/pytest.ini netns-tests/under_systemd.py"
    status, output = systemd.run(tests, seconds=360, PYTHONPATH=".:hw", PYTHONDONTWRITEBYTECODE="1")
    assert status == 0, output[-12000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed)", output)}
    assert set(counts) == {"passed"} and counts["passed"] >= 14, output[-2000:]
