from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit


def data_folder() -> Path:
    """Where the broker keeps everything, and its visitors find it, unless told otherwise."""
    import platformdirs

    return platformdirs.user_data_path("execbroker")


def config_folder() -> Path:
    """Where the visitors of brokers keep what opens their doors."""
    import platformdirs

    return platformdirs.user_config_path("execbroker")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_protected(url: str) -> bool:
    """Whether what is said to this address is for nobody else to hear: https, or http that does not leave this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and not parts.username and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
