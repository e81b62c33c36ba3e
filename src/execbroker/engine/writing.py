from dataclasses import replace
from typing import Any

from sqlalchemy import update

from execbroker.books.books import Books
from execbroker.engine.lifecycle import Call, Move, Wait, fail, step
from execbroker.faults import reach
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, State
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import Phase
from execbroker.model.times import Clock

LEASE = 90  # seconds; a verb is given less, so that no lease runs out under one that works
RELEASE_TRIES = 10
FREE: dict[str, Any] = {"leased_until": None, "lease": None}


class Writer:
    """Writes down what became of a step, under the lease that it was taken under; another's session is left alone."""

    def __init__(self, ledger: Ledger, books: Books, clock: Clock) -> None:
        self._ledger, self._books, self._clock = ledger, books, clock

    def now(self) -> int:
        return int(self._clock.now().timestamp())

    async def move(self, row: SessionRow, move: Move, **values: Any) -> SessionRow | None:
        """Write a move down. None, and the lease given back, where the session now has to wait, be polled, or was moved by
        somebody else."""
        now, outcome = self.now(), move.outcome or row.outcome
        due = self._free_until(row, move.to, now)

        async def operation(transaction: Transaction, _: int) -> bool:
            assert transaction.time is not None
            free = {"leased_until": transaction.time + LEASE} if due is None else {"due": due, **FREE}
            moved = await transaction.move(row, move.to, now, move.messages, row.lease, outcome=outcome, **free, **values)
            reach(f"{move.to}.writing")
            return moved

        moved = await self._books.write(operation)
        reach(f"{move.to}.written")
        if not moved:
            await self.leave_off(row)
        if not moved or due is not None:
            return None
        return replace(row, phase=move.to, outcome=outcome, state=values.get("state", row.state))

    def _free_until(self, row: SessionRow, phase: Phase, now: int) -> int | None:
        """When a session that comes to `phase` now is to be looked at again; None where its next step can be taken at once."""
        assert row.slot is not None
        match step(phase, row.slot, now):
            case Wait(until):
                return until
            case Call("poll"):
                return now
            case _:
                return None

    async def again(self, row: SessionRow, due: int | None, said: tuple[MessageItem, ...] = (), **values: Any) -> None:
        """Give the lease back, and come again at `due`."""
        if row.slot and row.phase in (Phase.RUNNING, Phase.RELEASING) and self.now() >= row.slot.done:
            await self._books.overrun(row.uuid, row.slot)
        values = {key: value for key, value in values.items() if value != getattr(row, key)}
        if not said and not values:
            await self.leave_off(row, due=due)
            return
        unleased = {"due": due, **FREE}

        async def operation(transaction: Transaction, _: int) -> bool:
            return await transaction.move(row, row.phase, self.now(), said, row.lease, **unleased, **values)

        if not await self._books.write(operation):
            await self.leave_off(row)

    async def leave_off(self, row: SessionRow, **values: Any) -> None:
        """Give the lease back where it is still ours. A due time is only set where the session is still where it was."""
        lease = update(sessions).where(sessions.c.uuid == str(row.uuid), sessions.c.lease == row.lease)
        here = lease.where(sessions.c.phase == row.phase.value)

        async def operation(transaction: Transaction, _: int) -> bool:
            if values and await transaction.execute(here.values(**FREE, **values)):
                return False
            await transaction.execute(lease.values(**FREE))
            return True

        if await self._books.write(operation):
            self._ledger.changes.due.set()

    async def failed(self, row: SessionRow, name: str, text: str) -> SessionRow | None:
        if row.phase is not Phase.RELEASING:
            return await self.move(row, fail(name, text))
        tries = row.state.failures + 1
        if tries < RELEASE_TRIES:
            await self.again(row, self.now() + min(2**tries, 60), state=replace(row.state, failures=tries))
            return None
        said = message("ERROR", "not-released", "It could not be released: {text}", text=text)
        await self.end(replace(row, outcome=Phase.FAILED), (said,), replace(row.state, ended=self.now()))
        return None

    async def unreachable(self, row: SessionRow, text: str) -> None:
        now = self.now()
        since = row.state.unreachable_since
        said = () if since else (message("WARN", "unreachable", "The platform cannot be reached: {text}", text=text),)
        state = replace(row.state, unreachable_since=since or now)
        await self.again(row, now + min(max(now - (since or now), 1), 60), said, state=state)

    async def end(self, row: SessionRow, said: tuple[MessageItem, ...], state: State) -> None:
        await self._books.settle(row, self.now(), said, state=state, **FREE)
        reach("settled")
