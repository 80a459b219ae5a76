"""What can be wrong with what arrives from the other side. No `Exception`s, so that no test takes them for expected."""

__all__ = ["DecodeError", "Refused"]


class DecodeError(BaseException):
    """What arrived is not an encoded value."""


class Refused(BaseException):
    """The other side asks for what it must not have."""
