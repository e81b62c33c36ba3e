from dataclasses import dataclass
from typing import Any

from execbroker.config import IssuerSettings
from execbroker.errors import Unauthorized

LONGEST = 255  # characters of a subject (OpenID Connect Core 1.0, 2)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a trusted issuer says of somebody. `issuer` and `subject` together are who it is, for ever; `name` and `groups` may
    change from one token to the next, and two people may have the same name."""

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]


def claims_of(settings: IssuerSettings, document: dict[str, Any]) -> Claims:
    """What the claims of a verified token say. Raises Unauthorized where they say nothing of anybody."""
    subject = document.get("sub")
    if not isinstance(subject, str) or not _is_plain(subject):
        raise Unauthorized("The token does not say whose it is")
    name = claim_at(document, settings.name)
    groups = claim_at(document, settings.groups)
    groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    return Claims(
        issuer=settings.issuer,
        subject=subject,
        name=name if isinstance(name, str) and _is_plain(name) else subject,
        groups=frozenset(group for group in groups if isinstance(group, str) and _is_plain(group)),
    )


def claim_at(document: Any, path: str) -> Any:
    """The claim of this name; `realm_access.roles` is also what `realm_access` has as `roles`. None where there is none.

    A name comes before a path: `wlcg.groups` and `https://example.org/groups` are names.
    """
    if not isinstance(document, dict):
        return None
    if path in document:
        return document[path]
    head, dot, rest = path.partition(".")
    return claim_at(document.get(head), rest) if dot else None


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= LONGEST and text.isprintable() and not text.isspace()
