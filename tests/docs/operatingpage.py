"""docs/operating.md, and the commands in it."""

import os
import re
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGE = (HOME / "docs" / "operating.md").read_text()


def wanting(what: str) -> None:
    """Something that is not here: no matter on somebody's own machine, a fault where everything is to be tested."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def blocks(heading: str) -> list[str]:
    """What stands between fences below a heading."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
