"""What a session has and what it costs, in words."""

from typing import Any

from execbroker.model.components import SimpleMinMaxFloatCost
from execbroker.model.sessions import ScheduledExecutionSession

_COST = "urn:ivoa:calycopis:cost:"
CURRENCIES = {"cost": f"{_COST}monetary", "energy": f"{_COST}energy", "carbon": f"{_COST}carbon"}


def computes_of(session: ScheduledExecutionSession) -> list[Any]:
    """Its compute resources, the first of them first."""
    return [one for one in (session.compute, *(session.further_compute or [])) if one is not None]


def held(compute: Any, name: str) -> int | None:
    """How much of `cores` or `memory` it has."""
    amount = getattr(compute, name, None)
    return amount and (amount.max or amount.min)


def nodes_of(session: ScheduledExecutionSession) -> int:
    return sum(getattr(one, "replicas", None) or 1 for one in computes_of(session))


def accelerators_of(compute: Any) -> str:
    """`2 a100, 1 l4`."""
    wanted = getattr(compute, "accelerators", None) or []
    return ", ".join(f"{one.count.max or one.count.min} {one.kind or 'gpu'}" for one in wanted if one.count)


def compute_text(compute: Any) -> str:
    """`2 nodes, each with 8 cores, 16 GiB, 1 a100, flavour large`."""
    replicas, flavour = getattr(compute, "replicas", None) or 1, getattr(compute, "flavour", None)
    cores, memory = held(compute, "cores"), held(compute, "memory")
    licences = [f"{one.count} {one.name}" for one in getattr(compute, "licences", None) or []]
    parts = [
        counted(cores, "core") if cores else "",
        f"{memory} GiB" if memory else "",
        accelerators_of(compute),
        f"flavour {flavour}" if flavour else "",
        f"licences: {', '.join(licences)}" if licences else "",
    ]
    text = ", ".join(part for part in parts if part)
    return f"{replicas} nodes, each with {text}" if replicas > 1 else text


def cost_of(session: ScheduledExecutionSession, what: str) -> str:
    """The most it can cost of `cost`, `energy` or `carbon`: `10.80 EUR`; nothing where it is free."""
    for cost in session.costs or []:
        if isinstance(cost, SimpleMinMaxFloatCost) and cost.type == CURRENCIES[what] and cost.max:
            return f"{number(cost.max)} {cost.description or ''}".rstrip()
    return ""


def costs_text(session: ScheduledExecutionSession) -> str:
    return ", ".join(text for what in CURRENCIES if (text := cost_of(session, what)))


def number(value: float) -> str:
    """Two digits behind the point, and no zero where there is something."""
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
