"""Stand-ins for objects that live on the other side.

For each class there, a class is made here that has the same name, the same bases and the same operators, and whose
operators carry themselves out there. So `type(x).__name__`, `isinstance`, `with`, `await`, `repr`, arithmetic and
subclassing do what they would in one process. An object of a class that is made from data (a named tuple, a subclass
of `list`) is that data here, with the attributes of the object there.
"""

from __future__ import annotations

import abc
import types
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, cast

from ..failures import DecodeError
from .classes import OPERATORS, TOLD, data_base, is_special, real_class
from .forwarding import UNSEEN, forwarding, raising
from .operations import member_parts
from .shared import kind_of
from .waiting import carried_out

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Mirrored", "Mirrors"]

_SECRET = object()
"""Given by who makes a class that stands for one there; any other new class is made there."""


class Mirrored(type):
    """The class of all classes that stand for one on the other side."""

    _reflexion_link: Link

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        _reflexion_secret: Any = None,
        **options: Any,
    ) -> Any:
        if _reflexion_secret is _SECRET:
            return type.__new__(mcs, name, bases, namespace)
        link = next(cls._reflexion_link for cls in bases if isinstance(cls, Mirrored))
        return link.mirrors.subclass(name, bases, namespace, options)

    def __init__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        _reflexion_secret: Any = None,
        **options: Any,
    ) -> None:
        type.__init__(cls, name, bases, namespace)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        link = cls._reflexion_link
        made = link.call(cls, args, kwargs)
        link.mirrors.note_made(made)
        return made

    def __getattr__(cls, name: str) -> Any:
        if name in UNSEEN:
            raise AttributeError(name)
        value = cls._reflexion_link.ask("get", cls, name)
        if callable(value) and not isinstance(value, type):
            cls._reflexion_link.mirrors.note_maker(value)
        return value

    def __setattr__(cls, name: str, value: Any) -> None:
        if isinstance(value, _Attribute | _Operator):  # what `patch.object` took from the class, and puts back
            cls._reflexion_link.ask("restore", cls, name)
        else:
            cls._reflexion_link.ask("set", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        cls._reflexion_link.ask("del", cls, name)

    def __iter__(cls) -> Any:
        return iter(cls._reflexion_link.ask("iter", cls))

    def __len__(cls) -> int:
        return cls._reflexion_link.ask("len", cls)

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        value = cls._reflexion_link.ask("item", cls, key)
        cls._reflexion_link.mirrors.note_maker(value)
        return value

    def __contains__(cls, item: Any) -> bool:
        return cls._reflexion_link.ask("in", cls, item) is True


class _Attribute:
    """A name that a class there defines."""

    __slots__ = ("_name", "_owner")

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner: Any = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        link: Link = self._owner._reflexion_link
        if instance is None:
            value = link.ask("get", owner, self._name)
            if callable(value):
                link.mirrors.note_maker(value)
            return value
        return link.mirrors.note_name(link.ask("get_from", self._owner, instance, self._name), self._name)

    def __set__(self, instance: Any, value: Any) -> None:
        self._owner._reflexion_link.ask("set", instance, self._name, value)

    def __delete__(self, instance: Any) -> None:
        self._owner._reflexion_link.ask("del", instance, self._name)


class _Operator:
    """An operator that a class there defines."""

    __slots__ = ("_base", "_name", "_owner")

    def __init__(self, name: str, base: type | None) -> None:
        self._name = name
        self._base = base
        self._owner: Any = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return _unbound(self._owner, self._name)

        def carry_out(*args: Any, **kwargs: Any) -> Any:
            link: Link = self._owner._reflexion_link
            if not link.may(instance, self._name, args):
                return self._refused(instance, args)
            if self._name == "__call__":
                return link.call(instance, args, kwargs)
            return link.operate(self._owner, self._name, instance, args)

        return carry_out

    def _refused(self, instance: Any, args: tuple[Any, ...]) -> Any:
        """What stands in for an operator that must not judge its own object."""
        if self._base is not None and hasattr(self._base, self._name):
            return getattr(self._base, self._name)(instance, *args)
        if self._name == "__contains__":
            return any(args[0] is each or args[0] == each for each in instance)
        return NotImplemented


def _unbound(owner: Any, name: str) -> Callable[..., Any]:
    def operator(instance: Any, *args: Any, **kwargs: Any) -> Any:
        return _Operator.__get__(owner.__dict__[name], instance)(*args, **kwargs)

    return operator


def _bind(self: Any, instance: Any, owner: Any = None) -> Any:
    return self if instance is None else types.MethodType(self, instance)


class Mirrors:
    """All stand-ins on one side, each once as long as it is in use."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._objects: dict[int, Any] = {}
        self._kept: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._classes: dict[int, Any] = {}
        self._released: list[int] = []
        self._made: set[int] = set()
        self._makers: set[int] = set()
        self._names: dict[int, str] = {}
        plain = {**forwarding(link), "__slots__": ("__weakref__",)}
        self._plain: Any = Mirrored("object", (), plain, _reflexion_secret=_SECRET)
        self._data: Any = Mirrored("object", (), forwarding(link), _reflexion_secret=_SECRET)
        self._raising: Any = Mirrored("Exception", (), raising(link), _reflexion_secret=_SECRET)

    def number(self, value: Any) -> int | None:
        """The number under which the other side knows what a value stands for; None: it stands for nothing."""
        return self._numbers.get(id(value))

    def take_released(self) -> list[int]:
        """Objects that nothing here stands for any more since last asked."""
        released, self._released = self._released, []
        return released

    def known(self, number: int) -> Any:
        """What stands for an object, or None."""
        found = self._kept.get(number)
        if found is not None:
            return found
        reference = self._objects.get(number)
        return None if reference is None else reference()

    def note_made(self, value: Any) -> None:
        """A test made this object itself; see `is_made`."""
        number = self._numbers.get(id(value))
        if number is not None:
            self._made.add(number)

    def note_maker(self, value: Any) -> None:
        """What this function of a class returns was made by a test."""
        number = self._numbers.get(id(value))
        if number is not None:
            self._makers.add(number)

    def note_name(self, value: Any, name: str) -> Any:
        """Remember by which name a value was read of an object there."""
        number = self._numbers.get(id(value))
        if number is not None:
            self._names[number] = name
        return value

    def known_as(self, value: Any) -> str | None:
        """The name by which a value was read of an object there."""
        number = self._numbers.get(id(value))
        return None if number is None else self._names.get(number)

    def is_maker(self, value: Any) -> bool:
        """Whether it is a function that a test took from a class, as it does with `from_text` in `P.from_text()`."""
        return self._numbers.get(id(value)) in self._makers

    def is_made(self, value: Any) -> bool:
        """Whether a test made the object, by its class or by an operator."""
        return self._numbers.get(id(value)) in self._made

    def _keep(self, number: int, value: Any) -> Any:
        if number in self._released:
            self._released.remove(number)
        self._numbers[id(value)] = number
        try:
            self._objects[number] = weakref.ref(value)
        except TypeError:  # numbers, texts and tuples cannot be watched
            self._kept[number] = value
        else:
            weakref.finalize(value, self._release, number, id(value)).atexit = False
        return value

    def _release(self, number: int, identity: int) -> None:
        if self._numbers.get(identity) == number:
            del self._numbers[identity]
        reference = self._objects.get(number)
        if reference is not None and reference() is None:
            del self._objects[number]
            self._made.discard(number)
            self._makers.discard(number)
            self._names.pop(number, None)
            self._released.append(number)

    def cls(self, described: Any) -> Any:
        """The class that stands for the one of a number, or the one of the library that is named.

        Raises:
            DecodeError: it is neither.
        """
        if isinstance(described, int):
            found = self._classes.get(described)
            if found is None:
                raise DecodeError(f"no class {described}")
            return found
        if described[0] == "x":
            found = real_class(described[1], described[2])
            return object if found is None else found
        raise DecodeError("no class")

    def learn(self, described: list[Any]) -> None:
        """Make what stands for a class of the other side, as `describe_class` describes it."""
        if described[0] not in self._classes:
            self._build(described)

    def _build(self, described: list[Any]) -> None:
        number, name, qualname, module, bases, names = described
        name, qualname, module = str(name), str(qualname), str(module)
        parents = [p for p in map(self.cls, bases) if p is not object]
        real = real_class(module, qualname) if module != "solution" else None
        data = next((b for p in parents if (b := data_base(p)) is not None), None)
        namespace: dict[str, Any] = {
            "__slots__": (),
            "__module__": module,
            "__qualname__": qualname,
            "_reflexion_link": self._link,
            "_reflexion_real": real,
        }
        for each in names:
            if each == "__await__":
                continue
            if each in OPERATORS:
                namespace[each] = _Operator(each, data)
            elif each not in namespace:
                namespace[each] = _Attribute(each)
        if "__await__" in names or name in ("async_generator_asend", "async_generator_athrow"):
            namespace["__await__"] = _awaited
        if module == "builtins" and name in ("function", "method", "builtin_function_or_method"):
            namespace["__get__"] = _bind
        if "__eq__" in names and "__hash__" not in names:
            namespace["__hash__"] = None
        namespace.setdefault("__doc__", property(lambda self: self._reflexion_link.ask("get", self, "__doc__")))
        if real is not None:
            namespace["__class__"] = property(lambda self: real)
        elif parents:
            namespace["__class__"] = property(type)
        made = self._make_class(name, parents, namespace, data)
        self._classes[number] = made
        self._numbers[id(made)] = number
        self._kept[number] = made
        for ancestor in made.__mro__:
            abstract = ancestor.__dict__.get("_reflexion_real") if isinstance(ancestor, Mirrored) else None
            if isinstance(abstract, abc.ABCMeta) and made is not ancestor:
                abstract.register(made)

    def _make_class(self, name: str, parents: list[Any], namespace: dict[str, Any], data: type | None) -> Any:
        ours = [p for p in parents if isinstance(p, Mirrored)]
        theirs = [p for p in parents if not isinstance(p, Mirrored)]
        if any(issubclass(p, BaseException) for p in parents):
            raised = [p for p in theirs if issubclass(p, BaseException)]
            bases = [*ours, *raised] if ours else [self._raising, *raised]
            namespace.pop("__class__", None)
        elif data is not None:
            bases = [*ours, *(p for p in theirs if data_base(p) is not None)] if ours else [self._data, data]
        else:
            bases = ours or [self._plain]
        try:
            return Mirrored(name, tuple(bases), namespace, _reflexion_secret=_SECRET)
        except TypeError:  # two bases that cannot stand beside each other here
            return Mirrored(name, tuple(bases[:2]), namespace, _reflexion_secret=_SECRET)

    def instance(self, number: int, described: Any) -> Any:
        """What stands for an object of a class."""
        found = self.known(number)
        if found is not None:
            return found
        cls = self.cls(described)
        if not isinstance(cls, Mirrored):
            raise DecodeError(f"no object of {cls.__name__}")
        return self._keep(number, object.__new__(cast("Any", cls)))

    def data(self, number: int, described: Any, value: Any) -> Any:
        """What stands for an object that is made from data that cannot change."""
        found = self.known(number)
        if found is not None:
            return found
        cls = self.cls(described)
        base = type(value)
        if not issubclass(cls, base):
            return value  # a class of a module that is not known here
        made = cast("Any", base).__new__(cls, value)
        return self._keep(number, made)

    def container(self, number: int, described: Any) -> Any:
        """What stands for an object that is made from a container; it is empty at first."""
        found = self.known(number)
        if found is not None:
            return found
        cls = self.cls(described)
        base = kind_of(cls)
        if base is None:
            raise DecodeError("no container")
        return self._keep(number, cast("Any", base).__new__(cls))

    def exception(self, number: int, described: Any, args: tuple[Any, ...], text: str) -> BaseException:
        """What stands for an exception of a class there."""
        found = self.known(number)
        if found is not None:
            return found
        cls = self.cls(described)
        if not issubclass(cls, BaseException):
            raise DecodeError("no exception")
        made: Any = cls.__new__(cls, *args)
        BaseException.__setattr__(made, "args", args)
        BaseException.__setattr__(made, "_reflexion_text", text)
        return self._keep(number, made)

    def subclass(self, name: str, bases: tuple[type, ...], namespace: dict[str, Any], options: dict[str, Any]) -> Any:
        """A class that is made here of one that lives there: it is made there, with the methods of here."""
        cell = namespace.pop("__classcell__", None)
        sent = {k: v for k, v in namespace.items() if k not in ("__module__", "__qualname__", "__firstlineno__")}
        sent.pop("__static_attributes__", None)
        members: dict[str, list[Any]] = {}
        for key, value in sent.items():
            members[key] = member_parts(value)
        number, description = self._link.ask("subclass", name, list(bases), members, options)
        local: dict[str, Any] = {
            "__slots__": (),
            "__module__": namespace.get("__module__"),
            "__qualname__": namespace.get("__qualname__", name),
            "_reflexion_link": self._link,
        }
        for key in description:
            if key in OPERATORS:
                local[key] = _Operator(key, data_base(bases[0]))
            elif key in TOLD or not is_special(key):
                local[key] = _Attribute(key)
        if cell is not None:
            local["__classcell__"] = cell
        made = Mirrored(name, bases, local, _reflexion_secret=_SECRET)
        self._classes[number] = made
        self._numbers[id(made)] = number
        self._kept[number] = made
        return made


def _awaited(self: Any) -> Generator[Any, Any, Any]:
    """Waiting for an object there: it is carried to its end there."""
    return (yield from carried_out(type(self)._reflexion_link, self).__await__())
