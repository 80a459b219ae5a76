"""Tests speak to this machine only: any other connection fails, and so does the test that tried it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

__all__ = ["attempts", "guard"]

attempts: list[str] = []
"""Addresses outside this machine that somebody tried to reach."""

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def _outside(sock: socket.socket, address: Any) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return None
    host = str(address[0])
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host in ("", "localhost")
    return None if inside else f"{host}:{address[1]}"


def _refuse(where: str) -> ConnectionRefusedError:
    attempts.append(where)
    return ConnectionRefusedError(f"tests may connect to this machine only, not to {where}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    where = _outside(self, address)
    if where is not None:
        raise _refuse(where)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    where = _outside(self, address)
    if where is not None:
        raise _refuse(where)
    return _connect_ex(self, address)


def guard() -> None:
    """Refuse connections to other machines from now on; every client in Python ends in these two."""
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]
