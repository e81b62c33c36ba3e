from collections.abc import Iterable
from dataclasses import dataclass

from execbroker.model.messages import MessageItem
from execbroker.model.waist import Job, Progress, Source
from execbroker.staging.base import DataSettings, Estimate, Fetcher


class Rates:
    """How fast things went, from which the next estimates are made."""


class Stager:
    """Brings sources to disk, by the fetcher of their scheme."""
