"""A stock Debian kernel in a virtual machine, for what the running kernel lacks: flowtables, tc flower, netdevsim.

Laws
- The guest sees the host's file system read-only, so it runs this very build; what it writes is gone afterwards.
- Nothing is installed: `vmrun.py` (env USERFW_VMRUN, default ../shared/vm/vmrun.py beside the repository) brings what it
  needs, or the reason why it cannot is the reason to skip.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VMRUN = Path(os.environ.get("USERFW_VMRUN") or ROOT.parent / "shared" / "vm" / "vmrun.py")
QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ".", "USERFW_PATIENCE": "5"}


def missing() -> str | None:
    """Why there is no virtual machine here, or None. The first call may fetch a kernel and takes up to minutes."""
    if not VMRUN.exists():
        return f"no virtual machine: {VMRUN} does not exist (USERFW_VMRUN names it)"
    done = subprocess.run([sys.executable, str(VMRUN), "--prepare"], capture_output=True, text=True, timeout=240, check=False)
    return None if done.returncode == 0 else f"no virtual machine: {(done.stderr.strip().splitlines() or ['?'])[-1]}"


def needed() -> None:
    """Skip the test that asks, with the reason, where there is no virtual machine."""
    reason = missing()
    if reason:
        pytest.skip(reason)


def run(command: str, *, modules: str = "", seconds: int = 240, qemu: str = "") -> subprocess.CompletedProcess[str]:
    """A shell command in the guest, in the repository, with kernel modules loaded first; output and exit status. `qemu`: further
    arguments for it, cards for example."""
    load = f"modprobe -a {modules} && " if modules else ""
    env = " ".join(f"{name}={value}" for name, value in QUIET.items())
    line = f"cd {shlex.quote(str(ROOT))} && {load}ip link set lo up && env {env} {command}"
    argv = [sys.executable, str(VMRUN), "--timeout", str(seconds), *([f"--qemu={qemu}"] if qemu else []), "--", line]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=False)


def pytest_in_guest(*arguments: str, modules: str = "", seconds: int = 240) -> subprocess.CompletedProcess[str]:
    """Namespace tests in the guest, by this interpreter."""
    tests = " ".join(shlex.quote(argument) for argument in arguments)
    config = "-c netns-tests/pytest.ini"
    return run(f"{shlex.quote(sys.executable)} -m pytest -q {config} {tests}", modules=modules, seconds=seconds)
