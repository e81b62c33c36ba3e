"""How `supernovae.csv` was made: `python -m execbroker.demo.simulate > supernovae.csv` makes it again, to the last digit."""

import math
import random
from collections.abc import Iterator

import typer

COUNT = 320
SEED = 1998
SPEED_OF_LIGHT = 299_792.458  # km/s
HUBBLE = 70.0  # km/s/Mpc
MATTER = 0.3
SCATTER = 0.12  # mag, of the supernovae themselves
STEPS = 400


def distance_modulus(redshift: float) -> float:
    """5 log10(d_L / 10 pc) in flat ΛCDM, the comoving distance by Simpson's rule (Hogg 1999, astro-ph/9905116)."""
    step = redshift / STEPS
    weights = (1 if i in (0, STEPS) else 4 if i % 2 else 2 for i in range(STEPS + 1))
    rates = (1 / math.sqrt(MATTER * (1 + i * step) ** 3 + 1 - MATTER) for i in range(STEPS + 1))
    comoving = SPEED_OF_LIGHT / HUBBLE * step / 3 * sum(w * r for w, r in zip(weights, rates, strict=True))
    return 5 * math.log10((1 + redshift) * comoving) + 25


def rows() -> Iterator[str]:
    """The lines of the table: nearby supernovae and far ones, the far ones measured less well."""
    draw = random.Random(SEED)  # noqa: S311 -- to be the same every time is the point
    redshifts = sorted(
        draw.uniform(0.015, 0.12) if draw.random() < 0.3 else 0.05 + 1.25 * draw.betavariate(2, 3) for _ in range(COUNT)
    )
    yield "name,redshift,distance_modulus,error"
    for number, redshift in enumerate(redshifts, 1):
        error = 0.06 + 0.1 * redshift * draw.uniform(0.7, 1.6)
        modulus = draw.gauss(distance_modulus(redshift), math.hypot(error, SCATTER))
        yield f"SIM{number:03d},{redshift:.4f},{modulus:.3f},{error:.3f}"


if __name__ == "__main__":
    for row in rows():
        typer.echo(row)
