"""People with accounts at a broker of the tests."""

from typing import Any

import httpx

from brokersite import Site

ADMIN = ("boss", "correct horse")
ALICE = ("alice", "battery staple")
BOB = ("bob", "bobs own password")
AUTH = {"mode": "accounts", "admin": {"username": ADMIN[0], "password": ADMIN[1]}}


async def enrol(site: Site, who: tuple[str, str] = ALICE, **more: Any) -> httpx.Response:
    """Let the admin make an account."""
    account = {"username": who[0], "password": who[1], **more}
    return await site.client.post("/admin/identities", json=account, auth=ADMIN)
