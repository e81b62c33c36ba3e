from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Table, Update
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.asyncio import AsyncEngine

from execbroker.errors import BrokerError
from execbroker.ledger.changes import Changes

PATIENCE = 5
"""Seconds for which a database may be locked or away before a request is told to come again."""

READING: dict[str, Any] = {
    "pool_size": 4, "max_overflow": 0, "isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None
}  # fmt: skip
"""How connections are kept that read; each read is one statement, so none needs a transaction around it."""

Parameters = dict[str, Any]
Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete


class Compiled(NamedTuple):
    """A statement's text, the values that it has in it, and what its rows are like, where it gives any."""

    text: str
    values: Parameters
    kind: type | None


class Result(NamedTuple):
    """The rows that a statement gave, and how many it touched."""

    rows: list[Any]
    touched: int


class Begun(NamedTuple):
    """The database's time, in seconds since 1970, where it has one that all brokers agree on, entries of the journal, and
    sessions, each with all the others of its offerset."""

    time: int | None = None
    news: Sequence[Any] = ()
    sessions: Sequence[Any] = ()


class Last(NamedTuple):
    """How a transaction ends: with changes whose result nobody needs, and then rows, those of a table all with the same columns.

    It is on the disk where anything has `changed`, and other brokers are told what it has `touched`, and whether anything is
    `due`.
    """

    changed: bool = False
    changes: Sequence[tuple[Statement, Parameters]] = ()
    inserts: Sequence[tuple[Table, Sequence[Parameters]]] = ()
    touched: Collection[UUID] = ()
    due: bool = False


class Database(ABC):
    """Where a ledger is kept, with one connection that writes. Statements are SQLAlchemy's; one that is run with parameters is
    compiled once."""

    name: str
    """What people call it."""
    fault: type[Exception]
    """What all that its driver raises is."""
    errors: tuple[type[Exception], ...]
    """What it raises where the database, not the statement, is the matter."""
    snapshot: IsolationLevel | None = None
    """The isolation in which several statements read one moment."""
    shared = False
    """Whether other brokers may write to it as well."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: dict[Statement, Compiled] = {}

    def wait(self) -> None:
        """Where it is just about to start, until it has, or for half a minute."""

    @abstractmethod
    def revision(self) -> str | None:
        """Which schema it has; None where it has none as yet. Raises what the driver raises."""

    @abstractmethod
    def migrating(self) -> AbstractContextManager[Connection]:
        """A transaction to change the schema in, while nobody else does."""

    @abstractmethod
    def reader(self) -> AsyncEngine:
        """Connections that read: each statement for itself."""

    @abstractmethod
    async def begin(self, since: int | None = None, wanted: Collection[UUID] = ()) -> Begun:
        """Begin a transaction. With `since`, no other broker has such a one at the same time, and that entry of the journal and
        all that came after it are told of, and, where that is cheap, how it stands with the sessions that are `wanted`."""

    @abstractmethod
    async def run(self, statement: Statement, parameters: Parameters | None = None) -> Result:
        """One statement; without parameters it has its values in it."""

    @abstractmethod
    async def commit(self, last: Last) -> None:
        """Write the `last` of the transaction and end it."""

    @abstractmethod
    async def grind(self, statement: Statement) -> None:
        """A statement that may take long."""

    @abstractmethod
    async def rollback(self) -> None:
        """Undo what is not committed; nothing where that is nothing."""

    async def listen(self, changes: Changes) -> None:
        """From now on, pass on what other brokers tell of what they wrote."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def clearer(self, error: BaseException) -> BrokerError:
        """What a client is told of one of `errors`."""

    def token(self) -> str:
        """A name for a lease, of 36 characters at most, that tells whose it is."""
        return str(uuid4())

    async def dead(self, tokens: Collection[str]) -> Collection[str]:
        """Those of leases that are no living broker's: all of them where no other broker can be at work. Within a transaction."""
        return tokens

    @property
    def full(self) -> bool:
        """Whether nothing new is to be taken on, as what is under way needs what room there is."""
        return False

    def filled(self) -> None:
        """There was no room for a transaction."""

    def set_room_aside(self) -> None:
        """Make sure that what is under way has room to end in."""

    def compiled(self, statement: Statement, *, kept: bool) -> Compiled:
        if found := self._compiled.get(statement) if kept else None:
            return found
        compiled = statement.compile(dialect=self._dialect, compile_kwargs={"render_postcompile": True})
        given = {bind.key for bind in compiled.binds.values() if bind.required}
        values = {name: value for name, value in compiled.params.items() if name not in given}
        names = [str(column.key) for column in statement.exported_columns]
        kind = namedtuple("Row", names) if names else None  # noqa: PYI024 -- the columns are what they are
        found = Compiled(str(compiled), values, kind)
        if kept:
            self._compiled[statement] = found
        return found
