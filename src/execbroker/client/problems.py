import json
from typing import Any


class ClientError(Exception):
    """The broker did not do what it was asked: its problem document (RFC 9457), `errors` with every fault by its path."""

    def __init__(self, status: int | None, title: str, detail: str = "", errors: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail or title
        self.errors = errors

    @classmethod
    def read(cls, status: int, body: bytes) -> "ClientError":
        """The problem in a reply; whatever is no problem document is quoted."""
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return cls(status, f"HTTP {status}", body[:200].decode(errors="replace").strip())
        faults = document.get("errors")
        errors = tuple(fault for fault in faults if isinstance(fault, dict)) if isinstance(faults, list) else ()
        return cls(status, str(document.get("title", f"HTTP {status}")), str(document.get("detail", "")), errors)


class NoAnswer(ClientError):
    """There is no broker, or it cannot be reached, or what answers is none."""

    def __init__(self, detail: str) -> None:
        super().__init__(None, "The broker cannot be reached", detail)
