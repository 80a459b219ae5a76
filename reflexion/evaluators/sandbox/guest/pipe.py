"""Messages over a stream socket: four bytes of length, then JSON."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

__all__ = ["Channel", "ChannelClosedError", "MessageTooLargeError"]

_LENGTH = struct.Struct("!I")


class ChannelClosedError(Exception):
    """The other side is gone."""


class MessageTooLargeError(Exception):
    """A message is larger than allowed."""


class Channel:
    """Sends and receives JSON messages; reads not a byte beyond a message, unless told to.

    Args:
        sock: a connected stream socket.
        limit: bytes of one message.
        private: nobody else reads from the socket, so that what comes next may be read as well: half the calls.
    """

    def __init__(self, sock: socket.socket, limit: int, *, private: bool = False) -> None:
        self.sock = sock
        self._limit = limit
        self._least = 1 << 16 if private else 0
        self._ahead = b""

    def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            MessageTooLargeError: nothing was sent.
            ChannelClosedError: the other side is gone.
        """
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > self._limit:
            raise MessageTooLargeError(f"{len(data)} bytes, of which {self._limit} are allowed")
        try:
            self.sock.sendall(_LENGTH.pack(len(data)) + data)
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise ChannelClosedError from exc

    def receive(self) -> Any:
        """Receive one message.

        Raises:
            MessageTooLargeError: it announces more bytes than allowed.
            ChannelClosedError: the other side is gone.
            ValueError: it is not JSON.
        """
        (length,) = _LENGTH.unpack(self.read(_LENGTH.size))
        if length > self._limit:
            raise MessageTooLargeError(f"{length} bytes, of which {self._limit} are allowed")
        return json.loads(self.read(length))

    def read(self, count: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            ChannelClosedError: the other side is gone.
        """
        parts, have = [self._ahead], len(self._ahead)
        while have < count:
            try:
                part = self.sock.recv(max(self._least, min(count - have, 1 << 20)))
            except ConnectionResetError as exc:
                raise ChannelClosedError from exc
            if not part:
                raise ChannelClosedError
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self._ahead = data[count:]
        return data[:count]

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
