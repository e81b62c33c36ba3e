import json
from collections.abc import Callable, Iterable
from typing import Any

from execbroker.model.components import SimpleMinMaxFloatCost, SimpleMinMaxFloatMetric
from execbroker.model.prices import Currency, Prices
from execbroker.model.waist import Slot
from execbroker.offers.limiting import CURRENCIES, PERFORMANCE, THROUGHPUT
from execbroker.scheduling.asks import Candidate
from execbroker.scheduling.objectives import Choice
from execbroker.scheduling.quotes import Parts, Quote, cost, dump_quotes, fits, load_quotes, quotes
from execbroker.scheduling.search import use_of

_FREE = SimpleMinMaxFloatCost(type=CURRENCIES["money"], description="EUR", min=0.0, max=0.0)


def quote_text(choice: Choice, candidate: Candidate, least: int, *, objective: bool) -> str:
    """What an offer costs and how good it is, as it is kept: what changes later changes no offer. `least` is the number of
    cores that were asked for."""
    slot = choice.slot
    cores = sum(share.cores for share in slot.shares)
    said: dict[str, Any] = {"performance": [least * candidate.performance, cores * candidate.performance]}
    if candidate.throughput is not None:
        said["throughput"] = candidate.throughput
    if candidate.prices:
        said["staged"] = candidate.staged
        said["costs"] = dump_quotes(quotes(candidate.prices, use_of(slot, candidate.staged)))
    if objective:
        said["objective"] = choice.objective
    return json.dumps(said)


def quoted(text: str | None, part: Callable[[Parts], float] = lambda parts: parts.total) -> dict[str, Any]:
    """The costs and metrics of a session, or the costs of a part of it with the same metrics."""
    costs = quoted_for(text, part)["costs"] or []
    if text and not any(cost.type == CURRENCIES["money"] for cost in costs):
        costs.insert(0, _FREE)
    return {"costs": costs or None, "metrics": list(_metrics(json.loads(text))) if text else None}


def quoted_for(text: str | None, part: Callable[[Parts], float]) -> dict[str, Any]:
    """The costs of a part of a session, where there is a price for anything."""
    said = json.loads(text) if text else {}
    costs = [_cost(quote, part) for quote in load_quotes(said["costs"])] if "costs" in said else []
    return {"costs": costs or None}


def most_of(text: str | None) -> tuple[tuple[Currency, float], ...]:
    """What it was quoted at most, by currency."""
    said = json.loads(text) if text else {}
    return tuple((quote.currency, quote.max.total) for quote in load_quotes(said["costs"])) if "costs" in said else ()


def staged_of(text: str | None) -> int:
    """How many bytes are staged, which the price of some is for."""
    return int(json.loads(text).get("staged", 0)) if text else 0


def requoted(text: str | None, prices: Prices | None, slot: Slot) -> str | None:
    """The quote of a session that has become longer or shorter."""
    if not text or not prices:
        return text
    said = json.loads(text)
    return json.dumps(said | {"costs": dump_quotes(quotes(prices, use_of(slot, staged_of(text))))})


def within(text: str | None, prices: Prices | None, slot: Slot) -> bool:
    """Whether a session costs no more in this slot than it was quoted."""
    if not text or not prices:
        return True
    use = use_of(slot, staged_of(text))
    return all(fits(cost(prices, currency, use), most) for currency, most in most_of(text))


def objective_of(text: str | None) -> str | None:
    """What an offer is best in, where its request said what it should be."""
    return json.loads(text).get("objective") if text else None


def _cost(quote: Quote, of: Callable[[Parts], float]) -> SimpleMinMaxFloatCost:
    return SimpleMinMaxFloatCost(
        type=CURRENCIES[quote.currency], description=quote.units, min=_rounded(of(quote.min)), max=_rounded(of(quote.max))
    )


def _metrics(said: dict[str, Any]) -> Iterable[SimpleMinMaxFloatMetric]:
    least, most = said["performance"]
    yield SimpleMinMaxFloatMetric(type=PERFORMANCE, description="cores", min=least, max=most)
    if "throughput" in said:
        value = said["throughput"]
        yield SimpleMinMaxFloatMetric(type=THROUGHPUT, description="MB/s", min=value, max=value)


def _rounded(value: float) -> float:
    """Without the dust of binary fractions."""
    return float(f"{value:.9g}")
