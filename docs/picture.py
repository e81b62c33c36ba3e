"""Draws docs/demo.svg, the README's picture, from a real run: python docs/picture.py"""

import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100


def terminal(command: list[str]) -> str:
    """What `command` prints in a terminal."""
    shown = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        shown.extend(data)
        return data

    os.environ |= {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "TZ": "UTC"}
    pty.spawn(command, read)
    return shown.decode().replace("\r\n", "\n")


def main() -> None:
    text = terminal([sys.executable, "-m", "execbroker", "demo"]).replace(str(Path.home()), "~")
    text = re.sub(r"\x1b\[[0-9;?]*[A-HJKSTfhlnsu]", "", text)  # movements of the cursor; colours stay
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    lines = [line for line in lines if not re.match(r"(\x1b\[[0-9;]*m)*[\u2800-\u28ff]", line)]  # the live line, long gone
    console = Console(width=WIDTH, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115 -- for the life of the script
    console.print(Text.from_ansi("\n".join(["$ make demo", *lines]).rstrip()))
    drawn = console.export_svg(title="execbroker", font_aspect_ratio=0.61)
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    Path(__file__).with_name("demo.svg").write_text(drawn)


if __name__ == "__main__":
    main()
