import json
from pathlib import Path

from execbroker.demo import simulate
from execbroker.demo.steps import NOTEBOOK, TABLE, request_for
from execbroker.model.sessions import ExecutionRequest

BUNDLE = Path(simulate.__file__).parent


def test_the_table_is_what_the_simulation_makes() -> None:
    assert (BUNDLE / TABLE).read_text().splitlines() == list(simulate.rows())


def test_distances_are_those_of_the_literature() -> None:
    """Wright 2006 (PASP 118, 1711): for H0 = 70, Omega_m = 0.3, flat, z = 1 is at 6607 Mpc; and nearby Hubble's law holds."""
    assert abs(simulate.distance_modulus(1.0) - 44.10) < 0.005
    assert abs(10 ** (simulate.distance_modulus(0.001) / 5 - 5) / (simulate.SPEED_OF_LIGHT * 0.001 / 70) - 1) < 0.002


def test_the_notebook_is_clean_and_takes_parameters() -> None:
    notebook = json.loads((BUNDLE / NOTEBOOK).read_text())
    cells = notebook["cells"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert [cell["id"] for cell in cells if "parameters" in cell["metadata"].get("tags", [])] == ["parameters"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert "simulated" in "".join(cells[0]["source"])


def test_what_the_demo_asks_for_fits_the_model() -> None:
    request = ExecutionRequest.model_validate(request_for(BUNDLE))
    assert request.executable is not None
    assert request.executable.reasons_against() == []
