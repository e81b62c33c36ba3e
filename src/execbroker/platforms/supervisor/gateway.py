import asyncio
import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from .namespaces import die_with_parent, enter_network, enter_owner

PATIENCE = 10  # seconds


class Gateway:
    """The door of one session's network namespace: what may go out of it, and the way in to its ports.

    This process enters it; the listening sockets that it is handed stay outside, and so does what carries packets out.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.told, self.namespace = told, int(told["namespace"])
        self.outbound: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Raises OSError, subprocess.SubprocessError."""
        parent = os.getppid()
        enter_owner(self.namespace)
        die_with_parent(signal.SIGKILL, parent)
        if self.told["outbound"]:
            self._start_outbound()
        enter_network(self.namespace)
        if self.told["filter"]:
            self._filter()

    def _start_outbound(self) -> None:
        """It says when it is ready, and ends when this process does, of whose end of a pipe it hears."""
        ready, told = os.pipe()
        alive, self._life = os.pipe()
        said = os.memfd_create("said")
        words = [f"--ready-fd={told}", f"--exit-fd={alive}", "--netns-type=path", f"/proc/self/fd/{self.namespace}", "tap0"]
        self.outbound = subprocess.Popen(  # noqa: S603 -- the program of the settings
            [*self.told["outbound"], *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(told, alive, self.namespace),
        )
        os.close(told)
        os.close(alive)
        if not os.read(ready, 1):
            text = Path(f"/proc/self/fd/{said}").read_text(errors="replace")
            raise OSError(f"{self.told['outbound'][0]}: {'; '.join(text.splitlines()[-5:])}")
        os.close(ready)
        os.close(said)

    def _filter(self) -> None:
        command, rules = self.told["filter"], self.told["rules"].encode()
        done = subprocess.run(command, input=rules, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603
        if done.returncode:
            raise OSError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-200:]}")

    async def relay(self) -> None:
        """Carry what comes in to the session's ports until whoever started this, or what carries packets out, is gone."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(0, over.set)
        if self.outbound:
            loop.add_reader(os.pidfd_open(self.outbound.pid), over.set)
        for fd, number in self.told["ports"]:
            await asyncio.start_server(lambda *ends, to=number: _carry(to, *ends), sock=socket.socket(fileno=fd))
        await over.wait()


async def _carry(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Join a connection from outside with one to the same port within; where nobody listens there, end it."""
    try:
        reading, writing = await asyncio.open_connection("127.0.0.1", number)
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(_pump(reader, writing), _pump(reading, writer))
    for end in (writer, writing):
        end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """All that comes from one end, and then that it has come to an end; where that fails both are over."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()


def main(told: str) -> None:
    """Says `ready`, or why not, on stdout; lives as long as stdin is open."""
    gateway = Gateway(json.loads(told))
    try:
        gateway.open()
    except (OSError, subprocess.SubprocessError) as error:
        _say(str(error))
        return
    _say("ready")
    with suppress(KeyboardInterrupt):
        asyncio.run(gateway.relay())


def _say(text: str) -> None:
    os.write(1, text.encode(errors="replace"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
