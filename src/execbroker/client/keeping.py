import asyncio
from collections.abc import AsyncGenerator

import httpx

from execbroker.client.devices import NotLoggedIn, renewed
from execbroker.client.logins import Login, Logins, Tokens
from execbroker.client.problems import NoAnswer

SOON = 60  # seconds before its end at which a token is renewed


class Kept(httpx.Auth):
    """The login that is kept for a broker, renewed before it expires, by one process for all."""

    def __init__(self, url: str, login: Login, logins: Logins) -> None:
        self._url, self._login, self._logins = url, login, logins

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if isinstance(self._login, Tokens) and self._login.is_over(SOON):
            self._login = await self._renewed()
        request.headers["Authorization"] = self._login.header
        yield request

    async def _renewed(self) -> Login:
        """Raises NotLoggedIn, NoAnswer. A refresh token often counts only once: two must not use the same."""
        async with self._logins.locked():
            found = await asyncio.to_thread(self._logins.find, self._url)
            if not isinstance(found, Tokens):
                if found is None:
                    raise NotLoggedIn(f"You have logged out of {self._url}")
                return found
            if not found.is_over(SOON):
                return found
            try:
                new = await renewed(found)
            except (NoAnswer, NotLoggedIn) as error:
                if not found.is_over():
                    return found
                if isinstance(error, NoAnswer):
                    raise
                raise NotLoggedIn(f"{error.detail}. Log in to {self._url} again: execbroker login") from None
            await asyncio.to_thread(self._logins.keep, self._url, new)
            return new
