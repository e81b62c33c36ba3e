from collections.abc import Iterable

from execbroker.model.waist import Flavour
from execbroker.scheduling.amounts import NOTHING, Amounts, counts_of
from execbroker.scheduling.asks import Part


def smallest_flavour(flavours: Iterable[Flavour], part: Part) -> Flavour | None:
    """The smallest that has at least what is wanted, and no more than was expressly asked for at most."""
    able = [flavour for flavour in flavours if part.least.within(flavour_amounts(flavour)) and _capped(flavour, part)]
    return min(able, key=lambda flavour: (flavour.cores, flavour.memory, flavour.accelerators), default=None)


def flavour_amounts(flavour: Flavour | None) -> Amounts:
    return Amounts(flavour.cores, flavour.memory, 0, counts_of(flavour.accelerators)) if flavour else NOTHING


def _capped(flavour: Flavour, part: Part) -> bool:
    accelerators = dict(flavour.accelerators)
    caps = [(flavour.cores, part.cores), (flavour.memory, part.memory)]
    caps += [(accelerators.get(kind, 0), count) for kind, count in part.accelerators]
    return all(size <= asked.cap for size, asked in caps)
