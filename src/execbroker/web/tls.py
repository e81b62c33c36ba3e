import re
import ssl
from pathlib import Path

from execbroker.config import Config
from execbroker.errors import StartupError

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Tls:
    """The certificate that new connections are shown: `renew` reads the files again, and leaves those that are connected alone.

    Raises StartupError where they cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.renew()

    def renew(self) -> None:
        """Raises StartupError; all is then as it was before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        text = _read("certificate", self._certificate)
        _read("key", self._key)
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except ssl.SSLError as error:
            raise StartupError(f"tls: {_fault(error, self._certificate, self._key)}") from None
        found = _FIRST.search(text)
        assert found is not None
        self.context, self.own = context, found[0] + "\n"


def tls_of(config: Config) -> Tls | None:
    """Raises StartupError."""
    if config.tls.certificate is None or config.tls.key is None:
        return None
    return Tls(config.tls.certificate, config.tls.key)


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise StartupError(f"tls.{name}: {path} cannot be read: {error.strerror}") from None


def _fault(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} is not that of the certificate in {certificate}"
    return f"{certificate} has to have a certificate, and {key} its private key without a passphrase, as PEM ({error.reason})"
