"""Examples for people and programs, as DALI 1.1 (2.3) has them: XHTML with RDFa."""

import json
from html import escape
from typing import Any, NamedTuple

from execbroker.model.registry import PUBLISHED
from execbroker.web.vosi import BROKER

_NOTEBOOK = f"{PUBLISHED}/executable/jupyter-notebook.yaml"
_COMPUTE = f"{PUBLISHED}/compute/simple-compute-resource.yaml"


class Example(NamedTuple):
    """A request, and what this broker says to it as long as there is room."""

    id: str
    name: str
    text: str
    request: dict[str, Any]
    answer: str


def examples(notebook: str) -> list[Example]:
    """Those that run something run this notebook."""
    run = {"executable": {"kind": _NOTEBOOK, "location": notebook}}
    batch = {"executable": {**run["executable"], "mode": "batch"}}
    interval = {"schedule": {"requested": {"duration": "PT10M", "flexible": True}}}
    return [
        Example("notebook", "A notebook", "Opened for a person, with a core and a GiB, soon.", run | _compute(1), "YES"),
        Example(
            "batch",
            "A notebook without a person",
            "Executed from top to bottom, and kept.",
            batch | _compute(1) | interval,
            "YES",
        ),
        Example(
            "too-large",
            "More than there is",
            "The answer is NO; its messages say why, and with how many cores it would be YES.",
            run | _compute(1_000_000),
            "NO",
        ),
        Example(
            "unknown-kind",
            "What nobody knows",
            "A kind that is not known here is no error: the answer is NO, and says so.",
            {"executable": {"kind": "https://example.org/kinds/time-machine"}},
            "NO",
        ),
    ]


def _compute(cores: int) -> dict[str, Any]:
    return {"compute": {"kind": _COMPUTE, "cores": {"min": cores}, "memory": {"min": 1}}}


def page(base: str, notebook: str) -> bytes:
    """The page at /examples: well-formed XML, each example referable by its id."""
    body = "".join(_section(base, one) for one in examples(notebook))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">\n'
        "<head><title>Examples</title></head>\n"
        '<body vocab="http://www.ivoa.net/rdf/examples#">\n<h1>Examples</h1>\n'
        f"<p>Notebooks run here are those that you can name by an address; {escape(notebook)} stands for yours.</p>\n"
        f"{body}</body>\n</html>\n"
    ).encode()


def _section(base: str, one: Example) -> str:
    body = json.dumps(one.request, indent=2)
    values = {"url": f"{base}/requests", "method": "POST", "content-type": "application/json", "body": body, "result": one.answer}
    pairs = "".join(_pair(key, value) for key, value in values.items())
    return (
        f'<div id="{one.id}" resource="#{one.id}" typeof="example">\n<h2 property="name">{escape(one.name)}</h2>\n'
        f'<p>{escape(one.text)} (<span property="capability">{BROKER}</span>)</p>\n{pairs}</div>\n'
    )


def _pair(key: str, value: str) -> str:
    element = "pre" if "\n" in value else "code"
    return (
        f'<div property="generic-parameter" typeof="keyval"><span property="key">{key}</span>: '
        f'<{element} property="value">{escape(value)}</{element}></div>\n'
    )
