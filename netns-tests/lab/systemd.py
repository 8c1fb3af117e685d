"""A container that boots systemd: the unit in `systemd/` runs there as on a machine of its own.

Laws
- The container's file system is this machine's under a tmpfs: it runs this very build, and what it writes is gone afterwards.
- Only what the tests need is started: `basic.target` and the one service that runs them. Its network is its own.
- The repository lies at /srv/userfw there, outside of any home directory, for the unit hides those.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = Path("/srv/userfw")
VENV = Path("/srv/venv")
NEEDED = ("systemd-nspawn", "unshare", "/lib/systemd/systemd")
TARGET = """[Unit]
Requires=basic.target userfw-test.service
After=basic.target
"""
JOB = """[Unit]
After=basic.target
[Service]
Type=oneshot
Environment={environment}
WorkingDirectory={tree}
ExecStart={command}
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS > /srv/job/status'
ExecStopPost=/bin/systemctl --no-block exit
StandardOutput=file:/srv/job/output
StandardError=inherit
"""
BOOT = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/lock
mount -t tmpfs tmpfs "$JOB/root"
mkdir "$JOB/root/up" "$JOB/root/work" "$JOB/root/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$JOB/root/up,workdir=$JOB/root/work" "$JOB/root/root"
root="$JOB/root/root"
echo "$MACHINE" > "$root/etc/machine-id"
exec systemd-nspawn --quiet --directory="$root" --machine="userfw-$MACHINE" --register=no --keep-unit \
    --private-network --capability=all --system-call-filter=bpf --console=pipe \
    --bind-ro="$JOB/units:/etc/systemd/system" --bind="$JOB/out:/srv/job" "$@" --boot systemd.unit=userfw-test.target
"""


def missing() -> str | None:
    """Why systemd cannot be booted in a container here, or None."""
    lacking = [name for name in NEEDED if not shutil.which(name)]
    return f"no container with systemd: {', '.join(lacking)} not installed" if lacking else None


def run(command: str, *, seconds: int = 240, **environment: str) -> tuple[int, str]:
    """A command in the repository, in a container that booted systemd: exit status (-1: it did not come that far) and output."""
    with tempfile.TemporaryDirectory(prefix="userfw-systemd-") as folder:
        job = Path(folder)
        for name in ("units", "out", "root"):
            (job / name).mkdir()
        values = " ".join(f'"{name}={value}"' for name, value in environment.items())
        (job / "units/userfw-test.target").write_text(TARGET)
        (job / "units/userfw-test.service").write_text(JOB.format(environment=values, tree=TREE, command=command))
        (job / "userfw").write_text(f'#!/bin/sh\nPYTHONPATH={TREE}:{TREE}/hw exec {interpreter()} -m userfw "$@"\n')
        (job / "userfw").chmod(0o755)
        binds = [f"--bind-ro={ROOT}:{TREE}", f"--bind-ro={job}/userfw:/usr/local/bin/userfw"]
        if interpreter() != sys.executable:
            binds.append(f"--bind-ro={Path(sys.prefix).resolve()}:{VENV}")
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "sh", *binds]
        env = {**os.environ, "JOB": folder, "MACHINE": uuid.uuid4().hex}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
        output, status = job / "out/output", job / "out/status"
        if not status.exists():
            return -1, f"{done.stdout}{done.stderr}"
        return int(status.read_text() or -1), output.read_text()


def interpreter() -> str:
    """The path in the container of the Python that runs here."""
    return sys.executable if sys.prefix == sys.base_prefix else f"{VENV}/bin/python"
