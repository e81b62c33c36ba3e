"""Which store the brokers of a test run keep their ledgers in, and a way to look into it and to break it."""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from execbroker.ledger import schema
from execbroker.ledger.database import Database
from execbroker.ledger.sqlite import Sqlite

NEEDED = "PostgreSQL is not here: install it (on Debian and Ubuntu: postgresql)"


class Server:
    """A PostgreSQL server of the tests' own, in a temporary folder, on a port of loopback that is free.

    Without `durable` it does not wait for the disk: what it has committed survives its own end, but not the machine's.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.settings: dict[str, str] = {}
        self._settle_down()
        self.call("initdb", "--auth=trust", "--username=execbroker", "--no-sync", "--no-instructions", "-D", str(self.data))
        self.start()
        self.create("empty")
        schema.prepare(self.database("empty"))

    def _settle_down(self) -> None:
        self.made: dict[Path, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="execbroker-postgres-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self.data, "postgres")

    @staticmethod
    @cache
    def programs() -> Path | None:
        """The folder of the newest version's programs."""
        here = shutil.which("initdb")
        found = [Path(here)] if here else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        return found[-1].resolve().parent if found else None

    def call(self, program: str, *words: str) -> None:
        folder = self.programs()
        assert folder is not None
        user = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run([folder / program, *words], capture_output=True, text=True, cwd="/", check=False, **user)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        where = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "''"}
        settings = {**where, "fsync": "on" if self.durable else "off", "max_connections": 200, **self.settings}
        given = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self.call("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-w", "-o", given, "start")

    def stop(self, mode: str = "fast") -> None:
        self.call("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def signal(self, how: signal.Signals) -> None:
        """To the server and all that works for it."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=True)
        for pid in (first, *map(int, told.stdout.split())):
            with suppress(ProcessLookupError):
                os.kill(pid, how)

    @property
    def runs(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def remove(self) -> None:
        if self.runs:
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def address(self, name: str) -> str:
        return f"postgresql://execbroker@127.0.0.1:{self.port}/{name}"

    def database(self, name: str) -> Database:
        from execbroker.ledger.postgres import Postgres

        return Postgres(self.address(name))

    def do(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, name: str, template: str = "template1") -> None:
        self.do(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')

    def of(self, folder: Path, *, made: bool = True) -> str:
        """The name of the database of a broker's folder, created when it is first asked for."""
        if folder not in self.made:
            self.made[folder] = f"test{time.time_ns():x}"
            self.create(self.made[folder], "empty" if made else "template1")
        return self.made[folder]

    def forget(self, folder: Path) -> None:
        self.do(f'DROP DATABASE "{self.made.pop(folder)}" WITH (FORCE)')


class Standby(Server):
    """Follows `first`, which waits for it with every commit where it is `synchronous`, until it is promoted."""

    def __init__(self, first: Server, *, synchronous: bool) -> None:
        self.durable, self.settings = first.durable, {}
        self._settle_down()
        self.data.rmdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self.call(
            "pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "-d", first.address("postgres"), "-D", str(self.data)
        )
        self.start()
        if synchronous:
            first.do("ALTER SYSTEM SET synchronous_standby_names = '*'")
            first.do("SELECT pg_reload_conf()")

    def promote(self) -> None:
        self.call("pg_ctl", "-D", str(self.data), "-w", "promote")


server: Server | None = None
"""None where ledgers are files."""


def address(folder: Path) -> str | None:
    """The address of the database of a broker with this folder, where it is on a server."""
    return server.address(server.of(folder)) if server else None


def database(folder: Path) -> Database:
    """The database of a broker with this folder."""
    return server.database(server.of(folder)) if server else Sqlite(folder / "ledger.sqlite")


@cache
def _empty() -> Path:
    path = Path(tempfile.mkdtemp(prefix="execbroker-test-")) / "empty.sqlite"
    schema.prepare(Sqlite(path))
    return path


def prepared(folder: Path) -> Database:
    """A database with the present schema, at no cost."""
    if not server:
        shutil.copy(_empty(), folder / "ledger.sqlite")
    return database(folder)


def forget(folder: Path) -> None:
    """The folder is no more, so the database is not needed any longer."""
    if server and folder in server.made:
        server.forget(folder)


def alone() -> str:
    """Begins a transaction that no broker writes beside."""
    if not server:
        return "BEGIN IMMEDIATE"
    from execbroker.ledger.postgres import BOOK

    return f"BEGIN; SELECT pg_advisory_xact_lock({BOOK})"


@contextmanager
def connection(folder: Path, **settings: Any) -> Iterator[Any]:
    """A connection of the driver's own, where each statement is a transaction."""
    if server:
        import psycopg

        with psycopg.connect(server.address(server.of(folder)), autocommit=True) as opened:
            yield opened
        return
    opened = sqlite3.connect(folder / "ledger.sqlite", timeout=10, isolation_level=None, **settings)
    try:
        yield opened
    finally:
        opened.close()


def execute(folder: Path, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows that a statement gives; `?` stands for a value."""
    with connection(folder) as opened:
        cursor = opened.execute(statement.replace("?", "%s"), values or None) if server else opened.execute(statement, values)
        return cursor.fetchall() if cursor.description else [()] * cursor.rowcount


@contextmanager
def refusing_offersets(folder: Path, after: int = 0) -> Iterator[None]:
    """The database refuses to take more offersets than so many new ones: a transaction that writes more fails as a whole."""
    ((known,),) = execute(folder, "SELECT count(*) FROM offersets")
    most = known + after
    if server:
        body = f"BEGIN IF (SELECT count(*) FROM offersets) >= {most} THEN RAISE 'broken'; END IF; RETURN NEW; END"
        execute(folder, f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS '{body.replace(chr(39), chr(39) * 2)}'")
        trigger = "FOR EACH ROW EXECUTE FUNCTION broken()"
        undo = ("DROP TRIGGER broken ON offersets", "DROP FUNCTION broken")
    else:
        trigger = f"WHEN (SELECT count(*) FROM offersets) >= {most} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        undo = ("DROP TRIGGER broken",)
    execute(folder, f"CREATE TRIGGER broken BEFORE INSERT ON offersets {trigger}")
    try:
        yield
    finally:
        for statement in undo:
            execute(folder, statement)
