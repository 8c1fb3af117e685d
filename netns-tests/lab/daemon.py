"""userfw with a configuration of a test's own: run, ended, and asked what it said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import netns
from .userfw import ROOT


class Daemon:
    """`folder` holds its configuration, its log, its control socket `s` and what it writes down for the next start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, config: str, seconds: float = 60) -> str:
        """Run it; what it said until it was ready or ended."""
        (self.folder / "userfw.toml").write_text(config)
        log = self.folder / "log"
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/hw", "RUNTIME_DIRECTORY": str(self.folder / "run")}
        with log.open("wb") as out:
            command = [sys.executable, "-m", "userfw", "run", "-c", str(self.folder / "userfw.toml")]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        deadline = time.monotonic() + seconds * netns.PATIENCE
        while "ready" not in log.read_text() and self.process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return log.read_text()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)

    def close(self) -> None:
        """End it however it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
