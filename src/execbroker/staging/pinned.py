import asyncio
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

from execbroker.staging.base import Forbidden, Interrupted
from execbroker.staging.guard import Guard, Url

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

CONNECT_SECONDS = 5
READ_SECONDS = 30


class Pinned:
    """Asks the very addresses that the guard has checked, and follows no redirect."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def send(self, method: str, url: Url, headers: Mapping[str, str], content: bytes | None = None) -> "Response":
        """The answer, its body still to be read; the caller's to close. Raises Forbidden, Interrupted."""
        import httpx

        client = await self._opened()
        failure: Exception | None = None
        for address in await self._guard.addresses(url):
            try:
                request = client.build_request(
                    method,
                    url.at(address),
                    headers={**headers, "Host": url.authority},
                    content=content,
                    extensions={"sni_hostname": url.host},
                )
                return await client.send(request, stream=True)
            except httpx.InvalidURL as error:
                raise Forbidden(f"it is not a URL ({error})") from error
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
            except httpx.TransportError as error:
                raise Interrupted(text_of(error)) from error
        raise Interrupted(f"no connection to {url.authority} ({text_of(failure)})") from failure

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()
            self._client = None

    async def _opened(self) -> "AsyncClient":
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(_new_client)
            return self._client


def text_of(error: Exception | None) -> str:
    return (str(error) if error else "") or type(error).__name__


def _new_client() -> "AsyncClient":
    import httpx

    # The system's certificates count as well as the bundled ones, for sites with an authority of their own.
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return httpx.AsyncClient(
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        # URLs name addresses here: a connection kept for one host would be taken for another at the same address,
        # and its certificate was never checked against that one's name.
        limits=httpx.Limits(max_keepalive_connections=0),
        # What one session was told is not repeated in another's name.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
