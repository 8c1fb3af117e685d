"""`userfw run`: logging, the configuration, the event loop; exit codes 0 stopped, 1 could not start, 2 configuration."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from userfw.daemon import schema
    from userfw.daemon.front import Worker


class JournalFormatter(logging.Formatter):
    """Lines with a syslog level in front, as systemd reads them from standard error (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """`<6>name: message`, every line of it."""
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        if record.levelno <= logging.DEBUG:
            level = 7
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return "\n".join(f"<{level}>{line}" for line in text.splitlines())


def set_up_logging(level: int) -> None:
    """Log to standard error: for the journal when it is the journal, with time and level otherwise."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def run(path: str, check: bool = False) -> int:
    """Run the daemon with the configuration in `path` until it is told to stop; with `check`, only check the file."""
    from userfw.daemon import sysctl
    from userfw.daemon.config import ConfigError, load
    from userfw.daemon.schema import LOG_LEVELS

    try:
        config = load(path, sysctl.NAMES)
    except ConfigError as error:
        print("\n".join(f"userfw: {error.path}: {problem}" for problem in error.problems), file=sys.stderr)
        return 2
    if check:
        print(f"{path}: {len(config.port)} ports, {len(config.route)} routes: no mistakes found")
        return 0
    set_up_logging(LOG_LEVELS[config.daemon.log_level])
    import uvloop

    from userfw.daemon.server import Server, StartError, compiled

    log = logging.getLogger("userfw")
    if not compiled():
        log.warning("running interpreted: the packet path was not compiled, expect a hundredth of the speed")
    try:
        if config.daemon.workers > 1:
            from userfw.daemon.front import fork_workers

            workers = fork_workers(config)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_front(config, workers))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(Server(config)))
    except StartError as error:
        print(f"userfw: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


async def _front(config: schema.Config, workers: list[Worker]) -> int:
    from userfw.daemon.front import Front

    return await Front(config, workers).run(_ready)


async def _serve(server: object) -> None:
    from userfw.daemon.server import Server

    assert isinstance(server, Server)
    await server.run(_ready)


def _ready() -> None:
    """To whoever started us; systemd is told otherwise, and its journal has the log's line."""
    if not os.environ.get("NOTIFY_SOCKET"):
        print("ready", flush=True)
