"""Serve a directory by HTTPS on port 443 of the loopback interface, for script/demo alone.

Arguments: directory, certificate chain (PEM), private key (PEM). Prints `ready` once it listens.
A path of the form `/NAME?ac-discovery=1` is answered from the file NAME.discovery.
"""

from __future__ import annotations

import http.server
import os
import ssl
import sys
from urllib.parse import urlsplit


class Site(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        parts = urlsplit(path)
        if "ac-discovery=1" in parts.query:
            return super().translate_path(parts.path.rstrip("/") + ".discovery")
        return super().translate_path(path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: the demo shows podctl's own output."""


def main() -> None:
    directory, certificate, key = sys.argv[1:]
    os.chdir(directory)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
