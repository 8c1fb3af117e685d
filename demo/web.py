"""A small web server for the demo: `/` says who is asking, `/N` sends N kilobytes. Run as `python web.py PORT NAME`."""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """The name of the server and the address of the client, or so many kilobytes."""
        size = self.path.strip("/")
        peer = self.client_address[0].removeprefix("::ffff:")
        body = bytes(int(size) * 1024) if size.isdigit() else f"{sys.argv[2]} {peer}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Without asking DNS for the name of `::`, which the hosts of the demo cannot reach (HTTPServer does)."""
        TCPServer.server_bind(self)


if __name__ == "__main__":
    Server(("::", int(sys.argv[1])), Handler).serve_forever()
