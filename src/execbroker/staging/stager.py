class Rates:
    """How fast things went, from which the next estimates are made."""


class Stager:
    """Brings sources to disk, by the fetcher of their scheme."""
