"""What can be wrong with what arrives from the other side."""

__all__ = ["DecodeError", "Refused"]


class DecodeError(Exception):
    """What arrived is not an encoded value."""


class Refused(Exception):
    """The other side asks for what it must not have."""
