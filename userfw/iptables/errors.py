"""What is wrong with a command line, in iptables' words."""

from __future__ import annotations

VERSION = "1.8.11"


class UsageError(Exception):
    """A command line that iptables would refuse with exit status 2."""
