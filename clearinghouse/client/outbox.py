"""What is on its way to the server, kept so that a process that dies sends the very same again.

Sealing twice gives two different blobs. Were they made anew, all their bytes would have to travel
again and the first ones would be left at the server. What lies here is as public as what the server
gets.
"""

from collections.abc import Callable

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.pieces import LARGE_BYTES
from clearinghouse.client.transport import Transport

FOLDER = "outbox"


class Outbox:
    """The folder of a party's home."""

    def __init__(self, keystore: Keystore, transport: Transport) -> None:
        self._keystore, self._transport = keystore, transport

    def send(self, name: str, make: Callable[[], bytes], kind: str) -> str:
        """Send what was kept under a name, or is made and kept now; returns its SHA-256 in hex.

        Small bytes are not kept: sending them anew costs nothing.

        Raises:
            ClearinghouseError: As `Transport.put_blob`; what was made is still here.
        """
        data = self.kept(name)
        if data is None:
            data = make()
            if len(data) > LARGE_BYTES:
                self.keep(name, data)
        digest = self._transport.put_blob(data, kind)
        self.forget(name)
        return digest

    def keep(self, name: str, data: bytes) -> None:
        """Keep bytes of any size under a name."""
        self._keystore.write(f"{FOLDER}/{name}", data)

    def kept(self, name: str) -> bytes | None:
        """What is kept under a name."""
        return self._keystore.read(f"{FOLDER}/{name}")

    def forget(self, name: str) -> None:
        """Forget it: it arrived."""
        self._keystore.forget(f"{FOLDER}/{name}")
