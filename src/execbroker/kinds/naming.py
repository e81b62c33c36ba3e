import re
from urllib.parse import unquote, urlsplit


def file_name(url: str, default: str = "data") -> str:
    """The last part of a URL's path, as a file name that is safe on disk."""
    return safe_name(unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]), default)


def safe_name(text: str, default: str = "data") -> str:
    """`text` as one component of a path: no separators, no leading dots, at most 120 characters."""
    return re.sub(r"[^\w.@+=-]+", "_", text, flags=re.ASCII).strip("_").lstrip(".")[:120] or default
