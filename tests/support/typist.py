"""podctl on a terminal, for tests that type."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import termios
from fcntl import ioctl
from typing import Any


class Typist:
    """podctl on a terminal, typed at."""

    def __init__(self, world: Any, *arguments: str) -> None:
        self.controller, side = pty.openpty()
        ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        self.seen = ""
        self.process = subprocess.Popen(
            world.command(*arguments), stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def expect(self, text: str) -> None:
        while text not in self.seen:
            assert select.select([self.controller], [], [], 30)[0], self.seen
            self.seen += os.read(self.controller, 4096).decode()
