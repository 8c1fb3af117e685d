"""What `ethtool -N` asks the kernel for n-tuple rules: the cases, and a recorder for their golden bytes.

`python tests/ports/ethtool_golden.py` runs ethtool on `lo` of a namespace of its own and reads the struct behind each of its ioctls
(ptrace, x86-64), then writes ethtool_golden.json. The kernel refuses them all, which does not matter.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import struct
from ipaddress import ip_address
from pathlib import Path

from userfw.ports.ethtool import RXNFC_SIZE, SIOCETHTOOL, SRXCLSRLINS, Steer

GOLDEN = Path(__file__).with_suffix(".json")
CASES = {
    "flow-type tcp4 src-ip 192.0.2.1 dst-ip 198.51.100.9 src-port 4000 dst-port 443 action 2 loc 3": Steer(
        "tcp4", 2, ip_address("192.0.2.1"), ip_address("198.51.100.9"), 4000, 443, 3
    ),
    "flow-type udp4 dst-port 53 action -1 loc 0": Steer("udp4", None, None, None, None, 53, 0),
    "flow-type sctp4 src-ip 192.0.2.1 action 1 loc 7": Steer("sctp4", 1, ip_address("192.0.2.1"), location=7),
    "flow-type tcp6 dst-ip 2001:db8::9 src-port 1 action 0 loc 1": Steer(
        "tcp6", 0, None, ip_address("2001:db8::9"), 1, None, 1
    ),
    "flow-type udp6 src-ip 2001:db8::1 dst-ip 2001:db8::2 src-port 5 dst-port 6 action 4 loc 2": Steer(
        "udp6", 4, ip_address("2001:db8::1"), ip_address("2001:db8::2"), 5, 6, 2
    ),
}
_TRACEME, _PEEK, _GETREGS, _SYSCALL, _SETOPTIONS = 0, 2, 12, 24, 0x4200
_IOCTL, _RSI, _RDX, _ORIG_RAX = 16, 13, 12, 15


def missing() -> str:
    """Why nothing can be recorded here; empty if it can."""
    if platform.machine() != "x86_64":
        return "the recorder knows x86-64 only"
    absent = [tool for tool in ("ethtool", "unshare") if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def asked(args: str) -> bytes:
    """struct ethtool_rxnfc as `ethtool -N lo ARGS` passes it. OSError if it could not be watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    child = os.fork()
    if not child:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            libc.ptrace(_TRACEME, 0, None, None)
            os.execvp("unshare", ["unshare", "-rn", "ethtool", "-N", "lo", *args.split()])
        finally:
            os._exit(127)
    found = b""
    _, status = os.waitpid(child, 0)
    while not os.WIFEXITED(status) and not os.WIFSIGNALED(status):
        registers = (ctypes.c_ulonglong * 27)()
        if not libc.ptrace(_GETREGS, child, None, ctypes.byref(registers)):
            if registers[_ORIG_RAX] == _IOCTL and registers[_RSI] == SIOCETHTOOL:
                found = found or _structure(child, registers[_RDX])
        if libc.ptrace(_SYSCALL, child, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
        _, status = os.waitpid(child, 0)
    if not found:
        raise OSError(f"ethtool {args}: no rule was asked for")
    return found


def _structure(child: int, request: int) -> bytes:
    """What struct ifreq at `request` points to, if it is a rule to be put in."""
    with open(f"/proc/{child}/mem", "rb") as memory:
        memory.seek(request + 16)
        memory.seek(struct.unpack("=Q", memory.read(8))[0])
        data = memory.read(RXNFC_SIZE)
    if data[:4] != struct.pack("=I", SRXCLSRLINS):
        return b""
    return data[:8] + bytes(8) + data[16:188] + bytes(4)  # `data` and the padding are what was on ethtool's stack


def main() -> None:
    """Record every case."""
    GOLDEN.write_text(json.dumps({args: asked(args).hex() for args in CASES}, indent=0) + "\n")


if __name__ == "__main__":
    main()
