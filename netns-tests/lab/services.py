"""Services in hosts and on the router: listening sockets, TCP that answers with what it gets, and a client that asks."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from lab.families import IP6, Family
from lab.netns import within
from lab.topology import Lab

T = TypeVar("T")


def listening(lab: Lab, where: str, kind: int, fam: Family, port: int, address: str = "",
              options: tuple[tuple[int, int], ...] = ()) -> socket.socket:
    """A socket of namespace `where`, bound and (TCP) listening; `options` (level, name) are switched on first."""
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if fam is IP6 else socket.AF_INET, kind)
        for level, name in ((socket.SOL_SOCKET, socket.SO_REUSEADDR), *options):
            sock.setsockopt(level, name, 1)
        sock.settimeout(4)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        return sock
    return within(lab.ns(where), make)


@contextlib.contextmanager
def echoing(server: socket.socket, told: Callable[[socket.socket], T]) -> Iterator[list[T]]:
    """Answers on `server` with what comes; yields what `told` says of each connection."""
    seen: list[T] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = server.accept()
                with conn, contextlib.suppress(OSError):  # a client that is gone ends its own connection only
                    seen.append(told(conn))
                    conn.settimeout(4)
                    while data := conn.recv(65536):
                        conn.sendall(data)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def echo(lab: Lab, where: str, fam: Family, port: int) -> contextlib.AbstractContextManager[list[str]]:
    """A TCP service that sends back what it gets; yields the peers it has seen."""
    return echoing(listening(lab, where, socket.SOCK_STREAM, fam, port), lambda conn: str(conn.getpeername()[0]))


def ask(lab: Lab, where: str, address: str, port: int, data: bytes = b"hello", seconds: float = 3) -> bytes:
    """Connect from namespace `where`, send, read the same amount back; OSError as connect(2) says."""
    def connect() -> socket.socket:
        return socket.create_connection((address, port), timeout=seconds)
    with within(lab.ns(where), connect) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            piece = sock.recv(1 << 16)
            if not piece:
                break
            got += piece
        sender.join()
        return bytes(got)
