import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from execbroker.client.core import AsyncClient

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(method: Callable[Concatenate[AsyncClient, P], Awaitable[T]]) -> "Callable[Concatenate[Client, P], T]":
    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._core, *args, **kwargs))

    return call


def _stepwise(method: Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    @wraps(method)
    def iterate(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        source = method(self._core, *args, **kwargs)
        end: Any = object()
        while (found := self._wait(anext(source, end))) is not end:
            yield found

    return iterate


class Client:
    """`AsyncClient` for those who do not `await`: scripts, and notebooks, whose own event loop it leaves alone."""

    def __init__(
        self, url: str | None = None, token: str | None = None, folder: Path | None = None, ca: Path | None = None
    ) -> None:
        self._core = AsyncClient(url, token, folder, ca)
        self.url = self._core.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="execbroker-client", daemon=True)
        self._thread.start()

    def _wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._wait(self._core.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    ask = _blocking(AsyncClient.ask)
    direct = _blocking(AsyncClient.direct)
    offerset = _blocking(AsyncClient.offerset)
    session = _blocking(AsyncClient.session)
    accept = _blocking(AsyncClient.accept)
    reject = _blocking(AsyncClient.reject)
    cancel = _blocking(AsyncClient.cancel)
    extend = _blocking(AsyncClient.extend)
    sessions = _blocking(AsyncClient.sessions)
    offersets = _blocking(AsyncClient.offersets)
    platforms = _blocking(AsyncClient.platforms)
    me = _blocking(AsyncClient.me)
    output = _blocking(AsyncClient.output)
    files = _blocking(AsyncClient.files)
    download = _blocking(AsyncClient.download)
    follow = _stepwise(AsyncClient.follow)
    events = _stepwise(AsyncClient.events)
