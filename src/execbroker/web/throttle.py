"""How often somebody may come: rates (token buckets), and waits after logins that failed."""

import asyncio
import base64
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from ipaddress import IPv6Address, ip_address

from execbroker.config import Config
from execbroker.errors import TooMany, Unauthorized
from execbroker.model.identities import ANYONE, Identity

Now = Callable[[], float]

REMEMBERED = 1 << 16
"""How many callers are remembered at a time."""
GENEROUS = {"requests": 100.0, "asks": 10.0, "anonymous": 50.0, "failures": 10}
FORGIVEN = 900  # seconds without a failed login after which those before are forgotten
LONGEST_ADDRESS, LONGEST_NAME = 60, 15
"""Seconds for which a login waits at most; by name less, for somebody else may have guessed."""
PATIENCE = 10  # seconds
ASKS = {"/requests", "/direct", "/offerset", "/request", "/offersets"}


class Rate:
    """A token bucket for each caller: `burst` at once, and `rate` a second in the long run.

    Of a caller one number is kept, the time at which its bucket is full (the virtual scheduling of GCRA, ITU-T I.371); of callers
    `most`: those that came least lately are forgotten, which only favours them.
    """

    def __init__(self, rate: float, burst: int, now: Now = time.monotonic, most: int = REMEMBERED) -> None:
        self._each, self._depth = 1 / rate, burst / rate
        self._now, self._most = now, most
        self._full: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, caller: str) -> float:
        """0 where it may go on, else the seconds after which it may."""
        now = self._now()
        full = max(self._full.get(caller, now), now) + self._each
        if full - now > self._depth + 1e-9:
            return full - now - self._depth
        self._full[caller] = full
        self._full.move_to_end(caller)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
        return 0


class Failures:
    """After `free` failures the next try waits a second, the one after it two, four, up to `longest`."""

    def __init__(self, free: int, longest: float, now: Now = time.monotonic, most: int = REMEMBERED) -> None:
        self._free, self._longest, self._now, self._most = free, longest, now, most
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def wait(self, who: str) -> float:
        """Seconds for which it may not try."""
        count, last = self._known.get(who, (0, 0.0))
        if count < self._free:
            return 0
        return max(last + min(2.0 ** min(count - self._free, 32), self._longest) - self._now(), 0)

    def failed(self, who: str) -> None:
        count, last = self._known.pop(who, (0, 0.0))
        now = self._now()
        self._known[who] = (count if now - last < FORGIVEN else 0) + 1, now
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, who: str) -> None:
        self._known.pop(who, None)


class Logins:
    """Makes guessing slow, by address and by name. Who has been let in from an address under a name waits for nobody's failures
    there but its own, so that nobody is locked out by others who guess at the same name, or come by the same address."""

    def __init__(self, free: int, now: Now = time.monotonic) -> None:
        self._free = free
        self._by_address = Failures(free, LONGEST_ADDRESS, now)
        self._by_name = Failures(free, LONGEST_NAME, now)
        self._own = Failures(free, LONGEST_NAME, now)
        self._trying: Counter[str] = Counter()
        self._ended = asyncio.Event()
        self._let_in: OrderedDict[tuple[str, str], None] = OrderedDict()

    @asynccontextmanager
    async def attempt(self, address: str, name: str) -> AsyncIterator[None]:
        """A login, within the block; it fails where that raises Unauthorized. Raises TooMany where it has to wait for long."""
        places = await self._places(address, name)
        self._trying.update(places)
        try:
            yield
            self._succeeded(address, name)
        except Unauthorized as error:
            if error.guess:
                self.failed(address, name)
            raise
        finally:
            self._trying.subtract(places)
            self._trying = +self._trying
            self._ended.set()
            self._ended = asyncio.Event()

    async def _places(self, address: str, name: str) -> tuple[str, ...]:
        """Where it counts as one that is being tried: nowhere after the first that succeeded. Any of these may fail, so that no
        more are tried at a time than may fail, and others wait for them."""
        while True:
            if (address, name) in self._let_in:
                places: tuple[str, ...] = ()
                wait = self._own.wait(f"{address} {name}")
            else:
                places = f"address {address}", f"name {name}"
                wait = max(self._by_address.wait(address), self._by_name.wait(name))
            if wait:
                raise TooMany("Too many logins have failed; the next may be tried later", wait)
            if all(self._trying[place] < self._free for place in places):
                return places
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._ended.wait()
            except TimeoutError:
                raise TooMany("Too many log in at once", 1) from None

    def failed(self, address: str, name: str) -> None:
        """For whoever finds out by itself that somebody has guessed."""
        self._own.failed(f"{address} {name}")
        if (address, name) not in self._let_in:
            self._by_address.failed(address)
            self._by_name.failed(name)

    def _succeeded(self, address: str, name: str) -> None:
        self._own.forget(f"{address} {name}")
        self._let_in[address, name] = None
        self._let_in.move_to_end((address, name))
        if len(self._let_in) > REMEMBERED:
            self._let_in.popitem(last=False)


class Throttle:
    """What the door asks of everyone: not to come too often, and not to guess."""

    def __init__(self, config: Config, now: Now = time.monotonic) -> None:
        rate, several = config.limits.rate, config.auth.mode not in ("token", "none")

        def set_(name: str) -> float | None:
            given: float | None = getattr(rate, name)
            return given or (GENEROUS[name] if several else None)

        self._requests = _rate(set_("requests"), rate.burst, now)
        self._asks = _rate(set_("asks"), rate.ask_burst, now)
        self._anonymous = _rate(set_("anonymous"), rate.burst, now)
        free = set_("failures")
        self._logins = Logins(int(free), now) if free else None

    def login(self, address: str, name: str) -> AbstractAsyncContextManager[None]:
        """As `Logins.attempt`, where anything is asked."""
        return self._logins.attempt(address, name) if self._logins else nullcontext()

    def admit(self, who: Identity, address: str, method: str, path: str) -> None:
        """Raises TooMany."""
        if who == ANYONE:
            _take(self._anonymous, address, "requests from this address")
            return
        _take(self._requests, who.owner, "requests")
        if method == "POST" and path in ASKS:
            _take(self._asks, who.owner, "asks")

    def anonymous(self, address: str) -> None:
        """Somebody brings no credentials where they are needed. Raises TooMany."""
        _take(self._anonymous, address, "requests from this address")


def _rate(rate: float | None, burst: int, now: Now) -> Rate | None:
    return Rate(rate, burst, now) if rate else None


def _take(rate: Rate | None, caller: str, what: str) -> None:
    if rate is not None and (wait := rate.take(caller)):
        raise TooMany(f"Too many {what}: the next may come in {wait:.1f} s", wait)


def caller_at(address: str) -> str:
    """Who an address stands for: one of IPv6 for its network of 64 bits, all of which one machine has."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)


def name_in(scheme: str, credentials: str) -> str:
    """Whose login this would be: the username of HTTP Basic; of a token a digest."""
    if scheme == "basic":
        try:
            return base64.b64decode(credentials).partition(b":")[0].decode()[:255]
        except ValueError:
            pass
    return hashlib.sha256(credentials.encode()).hexdigest()
