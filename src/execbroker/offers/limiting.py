from collections.abc import Iterator
from typing import NamedTuple

from execbroker.model.components import SimpleMinMaxFloatCost, SimpleMinMaxFloatMetric
from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.prices import Currency
from execbroker.model.sessions import ExecutionRequest

COST = "urn:ivoa:calycopis:cost:"
METRIC = "urn:ivoa:calycopis:metric:"
CURRENCIES: dict[Currency, str] = {"money": f"{COST}monetary", "energy": f"{COST}energy", "carbon": f"{COST}carbon"}
PERFORMANCE, THROUGHPUT = f"{METRIC}compute-performance", f"{METRIC}io-throughput"


class CostLimit(NamedTuple):
    """What it may cost at most, by the field at `path` of the request."""

    path: str
    currency: Currency
    most: float


def cost_limits(request: ExecutionRequest) -> Iterator[CostLimit | MessageItem]:
    """What it may cost at most, or what is wrong with what was said of it."""
    names = {name: currency for currency, uri in CURRENCIES.items() for name in (uri, uri.removeprefix(COST))}
    for index, cost in enumerate(request.costs or []):
        path, currency = f"costs[{index}]", names.get(cost.type or "")
        if not isinstance(cost, SimpleMinMaxFloatCost) or currency is None:
            known = ", ".join(CURRENCIES.values())
            yield warning("not-checked", path, "The limit in {path} is not checked; those that are: {known}", known=known)
        elif cost.max is not None:
            yield (
                CostLimit(f"{path}.max", currency, cost.max)
                if cost.max >= 0
                else reason(
                    "not-positive", f"{path}.max", "{value} in {path} is negative: nothing costs so little", value=cost.max
                )
            )


def metric_limits(request: ExecutionRequest) -> Iterator[tuple[str, str, float] | MessageItem]:
    """The path, type and value of what is wanted at least, or what is wrong with what was said of it."""
    names = {name: uri for uri in (PERFORMANCE, THROUGHPUT) for name in (uri, uri.removeprefix(METRIC))}
    for index, metric in enumerate(request.metrics or []):
        path, uri = f"metrics[{index}]", names.get(metric.type or "")
        if not isinstance(metric, SimpleMinMaxFloatMetric) or uri is None:
            text = "The limit in {path} is not checked; those that are: {known}"
            yield warning("not-checked", path, text, known=f"{PERFORMANCE}, {THROUGHPUT}")
        elif metric.min is not None:
            yield f"{path}.min", uri, metric.min
