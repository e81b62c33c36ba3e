import asyncio
import json
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from execbroker import __version__

SECONDS = 10  # for a whole answer
LARGEST = 1 << 20  # bytes
HEADERS = {"User-Agent": f"execbroker/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}


class NoDocument(Exception):
    """An issuer did not answer, or not with a JSON object; the message says why."""


class Web:
    """Asks issuers: nowhere else than told, not for long, and never for much."""

    def __init__(self) -> None:
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()  # for an issuer with an authority of its own
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=SECONDS,
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, url: str) -> dict[str, Any]:
        """Raises NoDocument."""
        status, document = await self._ask("GET", url)
        if status != 200:
            raise NoDocument(f"{url} answers {status}")
        return document

    async def post(self, url: str, form: dict[str, str], auth: tuple[str, str]) -> tuple[int, dict[str, Any]]:
        """The status and the document, which may say what was wrong. Raises NoDocument."""
        return await self._ask("POST", url, data=form, auth=auth)

    async def _ask(self, method: str, url: str, **details: Any) -> tuple[int, dict[str, Any]]:
        try:
            async with asyncio.timeout(SECONDS), self._client.stream(method, url, **details) as reply:
                document = json.loads(await _read(reply))
                if not isinstance(document, dict):
                    raise ValueError("it is no JSON object")
                return reply.status_code, document
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            raise NoDocument(f"no document from {url}: {str(error) or type(error).__name__}") from error


async def _read(reply: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in reply.aiter_raw():
        content += chunk
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
    return bytes(content)
