"""From the sections of a config to the classes that use their values, every problem at once."""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from omegaconf import DictConfig, ListConfig, OmegaConf

from dln_momentum.config.renamed import renamed
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.nearest import did_you_mean

T = TypeVar("T")


class Given(NamedTuple):
    """Arguments of something that a config describes."""

    keys: Mapping[str, str]
    """the key that holds each argument"""
    values: dict[str, Any] | None
    """None where one is of another type than the argument"""


class Reader:
    """Reads a config and builds what it describes; collects what is wrong with any of it.

    Types are those of the signature of what is built; ranges are checked by what is built. At the
    end every key must have been read by something.

    Attributes:
        errors: a line for each problem.

    >>> reader = Reader(OmegaConf.create({"top": {"x": 1e5, "y": "a", "quantity": 0}}))
    >>> def make(x: int, y: float): ...
    >>> reader.build(make, reader.given(make, {"x": "top.x", "y": "top.y"}))
    >>> reader.finish()
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - top.y = 'a' must be of type float
      - unknown key top.quantity; keys of top: x, y
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.errors: list[str] = []
        # of the job, whatever it runs
        self._read: set[str] = {"optimized_metric"}

    def value(self, key: str, kind: Any) -> Any:
        """The value of one key as the given type, or None with a line added to the errors."""
        self._read.add(key)
        section, _, leaf = key.rpartition(".")
        if OmegaConf.is_missing(self.config[section] if section else self.config, leaf):
            self.errors.append(f"{key} must be given")
            return None
        found = OmegaConf.select(self.config, key)
        value = OmegaConf.to_container(found) if isinstance(found, ListConfig) else found
        try:
            return cast(value, kind)
        except TypeError:
            self.errors.append(f"{key} = {value!r} must be {_name(kind)}")

    def choice(self, key: str, options: Mapping[str, T]) -> T | None:
        """The option that a key names, or None with a line added to the errors."""
        name = self.value(key, str)
        if name is not None and name not in options:
            self.errors.append(f"{key} = {name!r} must be one of {', '.join(options)}")
        return None if name is None else options.get(name)

    def section(self, section: str, make: Callable[..., Any], *others: str) -> dict[str, str]:
        """The key of each argument of ``make`` that a section gives, ``others`` left out.

        Keys that are no argument are errors.
        """
        accepted = list(_hints(make))
        given = [str(key) for key in self.config[section] if key not in others]
        self._read |= {f"{section}.{key}" for key in (*given, *others)}
        known = [f"{section}.{key}" for key in (*others, *accepted)]
        self.errors += [
            renamed(f"{section}.{key}") or _unknown(f"{section}.{key}", known)
            for key in given
            if key not in accepted
        ]
        return {key: f"{section}.{key}" for key in given if key in accepted}

    def given(self, make: Callable[..., Any], keys: Mapping[str, str]) -> Given:
        """Typed arguments of ``make`` from the keys that hold them."""
        hints, before = _hints(make), len(self.errors)
        values = {name: self.value(key, hints.get(name, Any)) for name, key in keys.items()}
        return Given(keys, values if len(self.errors) == before else None)

    def build(
        self, make: Callable[..., T], given: Given, section: str = "", **others: Any
    ) -> T | None:
        """``make`` of the given and other arguments, which come first; None where one is wrong.

        What ``make`` refuses with an `InputError` is added under the keys of the config; a line
        about no argument gets the name of the section.
        """
        if given.values is None:
            return None
        try:
            return make(**(given.values | others))
        except InputError as error:
            self.errors.extend(_named(line, given.keys, section) for line in error.problems)
            return None

    def finish(self) -> None:
        """Raise what was found wrong, keys included that nothing has read.

        Raises:
            InputError: listing all of it.
        """
        known = sorted(self._read)
        unread = [key for key in leaves(self.config) if not self._is_read(key)]
        raise_if_any([*self.errors, *(renamed(key) or _unknown(key, known) for key in unread)])

    def free(self, *sections: str) -> None:
        """Sections whose keys are the user's own."""
        self._read |= set(sections)

    def _is_read(self, key: str) -> bool:
        parts = key.split(".")
        return any(".".join(parts[:count]) in self._read for count in range(1, len(parts) + 1))


def _named(line: str, keys: Mapping[str, str], section: str) -> str:
    """A line that begins with an argument or a last part of a key, with the whole key there."""
    word = re.match(r"[\w.]+", line)
    names = {key.rpartition(".")[2]: key for key in keys.values()} | dict(keys)
    if word and (name := word[0].rpartition(".")[2]) in names:
        return names[name] + line[word.end() :]
    return line if not section or (word and "." in word[0]) else f"{section}: {line}"


def cast(value: Any, kind: Any) -> Any:
    """A value of a config as a type; a whole number may be written 1e5.

    Raises:
        TypeError: for a value of another type.

    >>> cast(1e5, int), cast(1, float | None), cast(None, float | None)
    (100000, 1.0, None)
    """
    if kind in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        with contextlib.suppress(OverflowError):  # an integer beyond all floats
            if number and (kind is float or float(value).is_integer()):
                return kind(value)
        raise TypeError
    if kind in (bool, str, types.NoneType):
        if isinstance(value, kind):
            return value
        raise TypeError
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (list, Sequence):
        if not isinstance(value, list):
            raise TypeError
        return [cast(entry, inner[0]) for entry in value]
    if origin in (types.UnionType, Union):
        for option in inner:
            try:
                return cast(value, option)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal and value not in inner:
        raise TypeError
    if kind is not Any and isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError
    return value


def leaves(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values.

    >>> list(leaves(OmegaConf.create({"a": {"b": 1, "c": []}, "d": None})))
    ['a.b', 'a.c', 'd']
    """
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from leaves(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _section(key: str) -> str:
    return key.partition(".")[0]


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments of a function or class."""
    is_plain_class = isinstance(make, type) and not is_dataclass(make)
    found = get_type_hints(make.__init__ if is_plain_class else make)
    found.pop("return", None)
    return {name: kind for name, kind in found.items() if get_origin(kind) is not ClassVar}


def _unknown(key: str, known: Sequence[str]) -> str:
    section = _section(key)
    own = [other.partition(".")[2] for other in known if other.startswith(f"{section}.")]
    if not own:
        return f"unknown key {key}{did_you_mean(key, known)}"
    return f"unknown key {key}{did_you_mean(key, known)}; keys of {section}: {', '.join(own)}"


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return f"of type {getattr(kind, '__name__', None) or str(kind).replace('NoneType', 'None')}"
