import asyncio
import fcntl
import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI

from execbroker import __version__
from execbroker.access.accounts import Accounts
from execbroker.access.guard import AccountsGuard
from execbroker.access.oidc import Issuers
from execbroker.books.books import Books
from execbroker.books.caps import Caps
from execbroker.broker import Broker
from execbroker.config import Config, platform_class
from execbroker.engine.callbacks import Callbacks
from execbroker.engine.engine import Engine
from execbroker.engine.feed import Feed
from execbroker.errors import BrokerError, StartupError
from execbroker.ledger import schema
from execbroker.ledger.audit import Findings, audit, report
from execbroker.ledger.database import Database
from execbroker.ledger.identities import Identities
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.migrate import migrate
from execbroker.ledger.sqlite import Sqlite
from execbroker.metrics import Measured, Metrics
from execbroker.model.times import Clock
from execbroker.places import is_loopback
from execbroker.platforms.base import Context, Platform
from execbroker.policies.rules import Policies
from execbroker.staging.base import Fetcher
from execbroker.staging.rates import Rates
from execbroker.staging.stager import Stager
from execbroker.store import Store
from execbroker.web.admin import admin
from execbroker.web.bodies import Crowd
from execbroker.web.dialect import dialect, dialect_faces
from execbroker.web.discovery import discovery
from execbroker.web.draft import draft, draft_faces
from execbroker.web.events import streams
from execbroker.web.identity import Door, Guard, Nobody, TokenGuard, read_token
from execbroker.web.methods import Options
from execbroker.web.outside import Application, check_prefix
from execbroker.web.problems import add_problems
from execbroker.web.replies import Tagged
from execbroker.web.routes import faces, open_to_all, router
from execbroker.web.throttle import Throttle
from execbroker.web.trail import Audited, trail_of

AUDIT = 3600  # seconds between two audits
log = structlog.get_logger()


class Parts:
    """Everything that works together in one broker process, put together here and nowhere else."""

    def __init__(self, config: Config, clock: Clock, ledger: Ledger, rates: Rates, metrics: Metrics) -> None:
        self.ledger, self.clock, self.metrics, self.since = ledger, clock, metrics, clock.now()
        self.store = Store(config.folder / "sessions", config.limits.output)
        self.fetchers = {scheme: fetcher for fetcher in load_fetchers(config) for scheme in fetcher.schemes}
        self.stager = Stager(self.fetchers, config.data, rates, clock)
        self.platforms = load_platforms(config, clock, self.stager)
        prices = {platform.name: platform.prices for platform in config.platforms if platform.prices}
        policies = {platform.name: Policies(platform.name, platform.policies) for platform in config.platforms}
        self.books = Books(ledger, clock, prices, Caps(config.offers.held_owner, config.offers.held_all), policies)
        self.engine = Engine(ledger, self.books, self.platforms, clock, self.store, config.retention)
        self.feed = Feed(ledger)
        self.callbacks = Callbacks(ledger, self.books, clock, config.callbacks)
        self.broker = Broker(
            ledger, self.books, self.platforms, clock, self.store, config.offers, metrics.answered, self.feed, self.callbacks,
            policies, public=config.auth.public,
        )  # fmt: skip

        self.accounts: Accounts | None = None
        self.issuers: Issuers | None = None
        self.guard: Guard | None = None
        if config.auth.mode == "accounts":
            identities = Identities(ledger)
            self.accounts = Accounts(config.auth, identities, clock)
            self.issuers = Issuers(config.auth.issuers, clock) if config.auth.issuers else None
            self.guard = AccountsGuard(self.accounts, self.issuers, identities, clock)

    async def inspect(self) -> None:
        """Audit the ledger: what is found is logged and shown among the metrics, and the broker goes on."""
        try:
            findings = await audit(self.ledger, int(self.clock.now().timestamp()))
        except Exception:
            log.exception("audit.failed")
            return
        report(findings)
        self.metrics.audited(findings)

    async def keep_inspecting(self, closing: asyncio.Event) -> None:
        """At once, and then every hour."""
        while not closing.is_set():
            await self.inspect()
            with suppress(TimeoutError):
                async with asyncio.timeout(AUDIT):
                    await closing.wait()


def database_of(config: Config) -> Database:
    """Raises StartupError where the database's driver is missing, or its address is none."""
    if config.database is None:
        return Sqlite(config.folder / "ledger.sqlite")
    try:
        from execbroker.ledger.postgres import Postgres
    except ImportError:
        raise StartupError("For PostgreSQL psycopg is needed: pip install 'execbroker[postgres]'") from None
    return Postgres(config.database.get_secret_value())


def load_fetchers(config: Config) -> list[Fetcher]:
    return [point.load()(config.data) for point in entry_points(group="execbroker.fetchers")]


def load_platforms(config: Config, clock: Clock, stager: Stager) -> dict[str, Platform]:
    """Raises StartupError where several users would share a platform that does not keep them apart."""
    several = config.auth.mode not in {"none", "token"}
    found: dict[str, Platform] = {}
    for settings in config.platforms:
        cls = platform_class(settings.type)
        if several and not cls.isolating:
            why = f"platforms of type {settings.type} do not keep sessions of several users apart"
            raise StartupError(f"platform {settings.name}: {why}, so it cannot be used with auth.mode: {config.auth.mode}")
        folder = config.folder / "platforms" / settings.name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found[settings.name] = cls(settings, Context(folder, clock, stager, (config.folder.resolve(),), several))
    return found


@asynccontextmanager
async def running(config: Config, clock: Clock, metrics: Metrics, *, engine: bool = True) -> AsyncIterator[Parts]:
    """A broker's parts, opened in order and closed in reverse; without `engine` its loop waits for `engine.settle()`.

    Raises StartupError where the data folder is in use, or of a newer version.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(config.folder, alone=config.database is None))
        database = database_of(config)
        await asyncio.to_thread(schema.prepare, database)
        ledger = Ledger(database)
        stack.push_async_callback(ledger.close)
        await ledger.open()
        notes: set[asyncio.Task[None]] = set()

        def keep(what: str, seconds: float, amount: float) -> None:
            task = asyncio.create_task(_note(ledger, what, seconds, amount, clock))
            notes.add(task)
            task.add_done_callback(notes.discard)

        parts = Parts(config, clock, ledger, Rates(await ledger.measures(), keep), metrics)

        async def kept() -> None:
            await asyncio.gather(*notes)

        stack.push_async_callback(kept)
        for fetcher in set(parts.fetchers.values()):
            stack.push_async_callback(fetcher.close)
        stack.push_async_callback(parts.stager.close)
        if parts.issuers:
            stack.push_async_callback(parts.issuers.close)
        for platform in parts.platforms.values():
            stack.push_async_callback(platform.close)
            await platform.open()
        with _to_stay():
            await parts.books.open()
        stack.callback(gc.unfreeze)
        stack.push_async_callback(parts.books.close)
        await parts.engine.open()
        stack.push_async_callback(parts.engine.close)
        await metrics.watch(ledger, clock, lambda: parts.books.waiting)
        closing = asyncio.Event()
        stack.push_async_callback(asyncio.wait, [asyncio.create_task(parts.keep_inspecting(closing), name="audit")])
        stack.callback(closing.set)
        parts.feed.open()
        stack.push_async_callback(parts.feed.close)
        stack.push_async_callback(parts.callbacks.close)
        if engine:
            parts.engine.run()
            parts.callbacks.run()
        yield parts


@contextmanager
def _to_stay() -> Iterator[None]:
    """What is loaded now lives as long as the broker. To look for garbage among it, again and again while it grows and every now
    and then ever after, would take half as long as the loading and hold up requests."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


async def _note(ledger: Ledger, what: str, seconds: float, amount: float, clock: Clock) -> None:
    try:
        await ledger.note(what, seconds, amount, int(clock.now().timestamp()))
    except BrokerError as error:
        log.warning("ledger.measure_lost", what=what, error=error.detail)


def _locked(folder: Path, *, alone: bool) -> IO[str]:
    """The data folder, for this broker `alone`, or for all on the same database: the lock goes with the process, however it
    ends. Raises StartupError."""
    try:
        lock = (folder / "lock").open("a")
        fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StartupError(
            f"The data folder {folder} is in use by another broker; stop it, or name another with --data"
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from None
    os.truncate(lock.fileno(), 0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"The data folder {folder} cannot be used: {error.strerror}")


def create_app(config: Config, clock: Clock | None = None, *, engine: bool = True) -> FastAPI:
    """The broker as an ASGI application; it opens its data folder when the server starts it."""
    clock = clock or Clock()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(config, clock, app.state.metrics, engine=engine) as parts:
            app.state.parts, app.state.broker, app.state.accounts = parts, parts.broker, parts.accounts
            app.state.guard = parts.guard or app.state.guard
            app.state.trail = trail = trail_of(config.audit, config.folder)
            try:
                yield
            finally:
                if trail:
                    await asyncio.to_thread(trail.close)

    app = Application(
        title="execbroker",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.config, app.state.metrics = config, Metrics()
    app.state.crowd, app.state.under_way, app.state.trail = Crowd(), set(), None
    add_problems(app)
    for routes in (open_to_all, discovery, streams, router, faces, admin, dialect, dialect_faces, draft, draft_faces):
        app.include_router(routes)
        check_prefix(config, routes.routes)
    try:
        config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        app.state.guard = _guard(config)
    except OSError as error:
        raise _unusable(config.folder, error) from None
    public = [*faces.routes, *dialect_faces.routes, *draft_faces.routes] if config.auth.public else []
    app.add_middleware(Tagged)
    app.add_middleware(Options)
    app.add_middleware(
        Door,
        guard=lambda: app.state.guard,
        hosts=_known_hosts(config),
        throttle=Throttle(config),
        open=[*open_to_all.routes, *discovery.routes, *public],
    )
    app.add_middleware(Audited)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


async def audit_ledger(config: Config, clock: Clock) -> Findings:
    """Audit the ledger, whether a broker uses it or not. Raises StartupError where there is none to read."""
    database = database_of(config)
    schema.check(database)
    ledger = Ledger(database)
    try:
        return await audit(ledger, int(clock.now().timestamp()))
    finally:
        await ledger.close()


def migrate_ledger(config: Config) -> dict[str, int]:
    """Move the ledger of the data folder to the database of the configuration: how many rows of what. Raises StartupError."""
    if config.database is None:
        raise StartupError("Where to? Name a PostgreSQL database by `database` in the configuration, or EXECBROKER_DATABASE")
    with _locked(config.folder, alone=True):
        return migrate(Sqlite(config.folder / "ledger.sqlite"), database_of(config))


def _guard(config: Config) -> Guard | None:
    """Who finds out who comes; None where that takes the ledger, too. Raises OSError."""
    match config.auth.mode:
        case "none":
            return Nobody()
        case "token":
            return TokenGuard(read_token(config.folder))
    return None


def _known_hosts(config: Config) -> set[str] | None:
    """The names under which the broker is known; None where it listens to more than this machine and anything may be one."""
    public = {urlsplit(config.public_url).hostname or ""} if config.public_url else set()
    return public if is_loopback(config.host) else None
