"""The packet path does not grow unnoticed: instructions per packet stay within the recorded bounds."""

import json
import shutil
import sys

import pytest

from bench import instructions
from userfw.core import packet


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.skipif(packet.__file__.endswith(".py"), reason="userfw runs interpreted")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bounds were recorded with Python 3.11")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rung", instructions.RUNGS)
def test_instructions_per_packet(rung: str) -> None:
    bounds = json.loads(instructions.BOUNDS.read_text())
    assert instructions.per_packet(rung) <= bounds[rung] * instructions.SLACK
