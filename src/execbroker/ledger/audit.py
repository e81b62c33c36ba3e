from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import structlog

from execbroker.ledger import checks
from execbroker.ledger.agreement import Disagreement, disagreements
from execbroker.ledger.ledger import Ledger
from execbroker.model.messages import MessageItem, message
from execbroker.model.times import format_instant

CHECKS = ("overbooked", "stray-hold", "no-hold", "other-hold")
"""What each error is a case of: more is held than there is; held for nobody; not held although it should be; held for other
times or amounts than the schedule says."""
LOGGED = 100
UNITS = {"memory": "GiB of memory", "storage": "GiB of storage"}
log = structlog.get_logger()
Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit found at `time`: `errors`, which should never be, and `notes`, which are nobody's mistake."""

    time: int
    holds: int
    errors: tuple[MessageItem, ...]
    notes: tuple[MessageItem, ...]

    def of(self, check: str) -> list[MessageItem]:
        """The errors of one of CHECKS."""
        return [error for error in self.errors if error.kind == f"urn:execbroker:message:{check}"]


async def audit(ledger: Ledger, now: int) -> Findings:
    """Compare what is held from `now` on with what the platforms have, and with what it is held for.

    Trusts nothing but the ledger, and sums bookings, never offers. Each check is one statement, so it sees one state of the
    ledger, whatever is written meanwhile.
    """
    errors = [(checks.overbooked(now), _overbooked), (checks.strays(now), _strays), (checks.bare(), _bare)]
    notes = [(checks.shrunk(), _shrunk), (checks.unknown(now), _unknown)]
    async with checks.reading(ledger) as connection:
        said = [one for query, tell in errors for one in tell((await connection.execute(query)).all())]
        said += [_other(one) async for one in disagreements(connection, now)]
        noted = [one for query, tell in notes for one in tell((await connection.execute(query)).all())]
        return Findings(now, (await connection.execute(checks.holds(now))).scalar_one(), tuple(said), tuple(noted))


def report(findings: Findings) -> None:
    """Log what was found: somebody has to look into it."""
    for error in findings.errors[:LOGGED]:
        log.error("audit.found", kind=error.kind, message=error.message)
    if more := len(findings.errors[LOGGED:]):
        log.error("audit.found_more", findings=more)


def _overbooked(rows: Rows) -> Iterator[MessageItem]:
    for (platform, node, kind), some in groupby(rows, lambda row: (row.platform, row.node, row.kind)):
        levels = list(some)
        for name in ("count",) if kind else checks.AMOUNTS[:3]:
            has = getattr(levels[0], f"has_{name}")
            over = ((level.time, level.until, int(getattr(level, name))) for level in levels)
            for start, end, held in _stretches(level for level in over if level[2] > has):
                text = "{platform}, {place}: {held} of {has} {resource} are held from {start} until {end}"
                amounts = {"held": held, "has": has, "resource": resource_of(kind or name)}
                where = {"platform": platform, "place": place_of(node)}
                yield message("ERROR", "overbooked", text, **where, **amounts, start=instant(start), end=instant(end))


def _stretches(levels: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """From when, until when, and how much at most: levels that follow one another are one."""
    found: list[tuple[int, int, int]] = []
    for start, end, amount in levels:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end, max(found[-1][2], amount))
        else:
            found.append((start, end, amount))
    return found


def _strays(rows: Rows) -> Iterator[MessageItem]:
    for row in rows:
        who = f"a session that is {row.phase}" if row.phase else "no session, and no offerset with open offers"
        text = "{platform}, {place}: held from {start} until {end} for {holder}, which is {who}"
        where = {"platform": row.platform, "place": place_of(row.node), "start": instant(row.start), "end": instant(row.end)}
        yield message("ERROR", "stray-hold", text, **where, holder=row.holder, who=who)


def _bare(rows: Rows) -> Iterator[MessageItem]:
    for row in rows:
        what, state = ("session", f"is {row.phase}") if row.phase else ("offerset", "has open offers")
        text = "{what} {uuid} {state}, but nothing is held for it"
        yield message("ERROR", "no-hold", text, what=what, uuid=row.uuid, state=state)


def _other(found: Disagreement) -> MessageItem:
    text = "{what} {uuid}: {held} {resource} are held of {platform}, {place}, at {time}, where its schedule says {due}"
    where = {"platform": found.platform, "place": place_of(found.node), "time": instant(found.time)}
    amounts = {"held": found.held, "due": found.due, "resource": resource_of(found.resource)}
    return message("ERROR", "other-hold", text, what=found.what, uuid=found.holder, **where, **amounts)


def _shrunk(rows: Rows) -> Iterator[MessageItem]:
    for row in rows:
        wide = f"{row.cores} cores, {row.memory} GiB of memory, {row.storage} GiB of storage"
        text = "{platform}, {place}: has {has} since {since}, which is less than was promised of it before"
        where = {"platform": row.platform, "place": place_of(row.node), "since": instant(row.shrunk)}
        yield message("INFO", "shrunk", text, **where, has=f"{row.count} {row.kind}" if row.kind else wide)


def _unknown(rows: Rows) -> Iterator[MessageItem]:
    for row in rows:
        text = "{platform}: what it has is not known, so what is held of it ({holds}) was not compared with it"
        yield message("INFO", "unknown-platform", text, platform=row.platform, holds=row.holds)


def place_of(node: str) -> str:
    return f"node {node}" if node else "shared by its nodes"


def resource_of(name: str) -> str:
    return UNITS.get(name, name)


def instant(seconds: int) -> str:
    return format_instant(datetime.fromtimestamp(min(seconds, _LAST), UTC))


_LAST = 253402300799  # the last second that the calendar has
