"""HTTP/1.1 as uvicorn speaks it, by httptools where that is here, and with clients that would rather speak something else."""

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    Http = H11Protocol
else:
    try:
        import httptools
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        Http = H11Protocol
    else:

        class Parser(httptools.HttpRequestParser):
            """Reads a request that offers another protocol as if it did not (RFC 9110, 7.8: an offer may be ignored).

            llhttp takes such a request to end with its head and what follows to be the other protocol; but the clients of Java
            send an offer of HTTP/2 with whatever they send first, a body after it.
            """

            def __init__(self, protocol: Any) -> None:
                super().__init__(protocol)
                self._protocol = protocol

            def feed_data(self, data: bytes) -> None:
                while True:
                    try:
                        super().feed_data(data)
                    except httptools.HttpParserUpgrade as offer:
                        if not self.offers:
                            raise
                        data = self._head_again() + data[offer.args[0] :]
                    else:
                        return

            @property
            def offers(self) -> bool:
                """Whether the request has an offer; CONNECT ends with its head, too, and has none."""
                return self.should_upgrade() and self.get_method() != b"CONNECT"

            def _head_again(self) -> bytes:
                lines = [b"%s %s HTTP/%s" % (self.get_method(), self._protocol.url, self.get_http_version().encode())]
                lines += [b"%s: %s" % (name, value) for name, value in self._protocol.headers if name != b"upgrade"]
                return b"\r\n".join([*lines, b"", b""])

        class Http(HttpToolsProtocol):
            """Waits for the second reading of a request that offers something else."""

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.parser = Parser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

            def on_headers_complete(self) -> None:
                if not self.parser.offers:
                    super().on_headers_complete()

            def on_message_complete(self) -> None:
                if not self.parser.offers:
                    super().on_message_complete()
