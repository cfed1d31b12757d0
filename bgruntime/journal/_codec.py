"""Arguments as JSON and back: what does not come back as it went is refused where it is submitted."""

from __future__ import annotations

import inspect
import json
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from itertools import repeat
from typing import Any, NamedTuple

import pydantic
from pydantic import ConfigDict, TypeAdapter
from pydantic_core import CoreConfig, SchemaSerializer
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from bgruntime import PayloadError
from bgruntime.extend import MASK, Secrets, capped, secret_parts

from ._texts import safe_repr, short_repr, storable

LIMIT = 256 * 1024  # bytes of JSON
CONFIG = ConfigDict(
    strict=True,
    extra="forbid",
    val_json_bytes="base64",
)
WRITING = CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="constants")
PLAIN = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
DEPTH = 100
LOOKS = 4_000  # at parts of arguments, to find out whether they are too large
CONTAINERS = (list, dict, Iterable, Sequence, MutableSequence, Mapping, MutableMapping)
Rest: Any = list
class_of: Callable[[Any], Any] = type
attributes_of: Callable[[Any], Any] = vars
Others: Any = dict


class Payload(NamedTuple):
    """Arguments as they are written, and as the job gets them: copies that came out of the text."""

    text: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """Arguments for people to read; `obstacle` says why no job can be made of them again, if so."""

    text: str
    obstacle: str | None
    secrets: Secrets


class Codec:
    """Writes and reads the arguments of one function, by the types in its signature.

    `redact` names the parameters whose values never leave it.
    """

    def __init__(self, task: str, function: Callable[..., Any], redact: tuple[str, ...] = ()) -> None:
        self.task = task
        self._signature = inspect.signature(function)
        self._hints = hints_of(function)
        self._redact = frozenset(redact)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Payload:
        """The arguments as JSON, at most 256 KiB of it, and read back from it.

        Raises `PayloadError` for what JSON and the annotations cannot give back as it was, and
        `TypeError` where the call does not fit the signature.
        """
        given = self._named(args, kwargs)
        try:
            text = self._write(given, warnings=False)  # a value of another type is found by what comes back
            taken = self._read(text) if len(text) <= LIMIT else {}
        except Exception as error:
            raise self._blamed(given, error) from error
        if len(text) > LIMIT:
            raise self._refusal(
                f"{len(text):,} bytes of arguments; the limit is {LIMIT:,}. Pass a path or a key"
            )
        if not survived(given, taken) or not self._typed(given, taken):
            raise self._blamed(given, None)
        return Payload(text.decode(), *self._call(taken))

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that were written as `text`; `PayloadError` when the function takes them no more."""
        try:
            return self._call(self._adapter.validate_json(text), check=True)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refusal(f"the arguments no longer fit: {reason_of(error)}") from error

    def describe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
        """As much as can be written of any arguments; never raises and shows no secret."""
        given, hidden, secrets = self._hidden(args, kwargs)
        large = [name for name in given if name not in hidden and is_large(given[name])]
        if not hidden and not large:
            try:
                return Described(self.encode(args, kwargs).text, None, secrets)
            except (PayloadError, TypeError):
                pass
        shown = {name: MASK if name in hidden else readable(given[name], name in large) for name in given}
        text = secrets.scrub(json.dumps(shown))
        if text == MASK:  # there is too much to look for
            text = json.dumps(dict.fromkeys(shown, MASK))
        why = f"{', '.join(hidden)} redacted" if hidden else "arguments that cannot be written as JSON"
        if large and not hidden:
            why = f"more than {LIMIT:,} bytes of arguments"
        return Described(capped(text, LIMIT), why, secrets)

    def secrets(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Secrets:
        """What must be taken out of every text about a call with these arguments."""
        return self._hidden(args, kwargs)[2]

    def _hidden(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str], Secrets]:
        """The arguments by name, the names of those that are not to be seen, and what they hide."""
        try:
            given = self._named(args, kwargs)
        except TypeError:
            given = {str(place): value for place, value in enumerate(args)} | dict(kwargs)
        secret = {name: list(secret_parts(value)) for name, value in given.items()}
        hidden = [name for name in given if name in self._redact or secret[name]]
        values = [given[name] for name in hidden if name in self._redact]
        return given, hidden, Secrets(*values, *(part for parts in secret.values() for part in parts))

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter; what was not given is left out."""
        names = self._plain_names
        if names is not None and len(args) <= len(names):
            given = dict(zip(names, args, strict=False))
            if not kwargs and len(args) == len(self._taken):
                return given  # the most frequent call
            if kwargs.keys() <= self._taken and not given.keys() & kwargs.keys():
                given.update(kwargs)
                if given.keys() >= self._required:
                    return given
        bound = self._signature.bind(*args, **kwargs).arguments
        return {name: list(value) if name == self._rest else value for name, value in bound.items()}

    def _call(self, given: dict[str, Any], *, check: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._plain_names is not None:
            if check:
                self._signature.bind(**given)
            return (), given
        if self._rest in given:
            given[self._rest] = tuple(given[self._rest])
        bound = inspect.BoundArguments(self._signature, OrderedDict(given))
        if check:
            self._signature.bind(*bound.args, **bound.kwargs)
        return bound.args, bound.kwargs

    @cached_property
    def _plain_names(self) -> list[str] | None:
        """The positional parameters of a function that has none but plain ones."""
        parameters = self._signature.parameters.values()
        if any(parameter.kind not in PLAIN for parameter in parameters):
            return None
        return [
            parameter.name for parameter in parameters if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
        ]

    @cached_property
    def _taken(self) -> frozenset[str]:
        return frozenset(self._signature.parameters)

    @cached_property
    def _required(self) -> frozenset[str]:
        parameters = self._signature.parameters.values()
        return frozenset(parameter.name for parameter in parameters if parameter.default is Parameter.empty)

    def _typed(self, given: dict[str, Any], taken: dict[str, Any]) -> bool:
        """Are the values of the types they were, where no annotation says of what type they come back?"""
        return all(same_types(given[name], taken[name], deep) for name, deep in self._loose if name in given)

    @cached_property
    def _loose(self) -> list[tuple[str, bool]]:
        """Parameters without an annotation; and those, False, of which only the container is annotated."""
        hints = {name: self._hints.get(name, Any) for name in self._signature.parameters}
        return [(name, is_any(kind)) for name, kind in hints.items() if is_any(kind) or holds_any(kind)]

    @cached_property
    def _rest(self) -> str | None:
        parameters = self._signature.parameters.values()
        return next((found.name for found in parameters if found.kind is Parameter.VAR_POSITIONAL), None)

    @cached_property
    def _write(self) -> Callable[..., bytes]:
        # One of its own: pydantic heeds the configuration of a TypedDict where it reads, not where it writes.
        return SchemaSerializer(self._adapter.core_schema, WRITING).to_json

    @cached_property
    def _read(self) -> Callable[[bytes], dict[str, Any]]:
        return self._adapter.validator.validate_json

    @cached_property
    def _adapter(self) -> TypeAdapter[dict[str, Any]]:
        types = {parameter.name: self._type(parameter) for parameter in self._signature.parameters.values()}
        try:
            return adapter_of(types)
        except pydantic.errors.PydanticUserError:
            return adapter_of({name: kind if has_schema(kind) else Any for name, kind in types.items()})

    def _type(self, parameter: Parameter) -> Any:
        kind = self._hints.get(parameter.name, Any)
        if parameter.kind is Parameter.VAR_POSITIONAL:
            return Rest[kind]
        if parameter.kind is Parameter.VAR_KEYWORD:
            unpacked = typing.get_origin(kind) is typing.Unpack
            return typing.get_args(kind)[0] if unpacked else Others[str, kind]
        return kind

    def _blamed(self, given: dict[str, Any], error: Exception | None) -> PayloadError:
        """Name the argument that is at fault."""
        for name, value in given.items():
            why = self._fault_of(name, value)
            if why:
                return self._refusal(f"argument {name!r} {why}")
        return self._refusal(f"the arguments cannot be written: {reason_of(error)}")

    def _fault_of(self, name: str, value: Any) -> str | None:
        try:
            text = self._write({name: value}, warnings=False)
            taken = self._adapter.validate_json(text)
        except Exception as error:
            return f"({type(value).__qualname__}) cannot be written as JSON and read back: {reason_of(error)}"
        if survived({name: value}, taken) and self._typed({name: value}, taken):
            return None
        back = type(taken[name]).__qualname__
        same = back == type(value).__qualname__
        how = "changed" if same else f"as {back}"
        annotated = self._hints.get(name, Any) is not Any
        advice = ", as it is annotated" if annotated else "; annotate the parameter"
        return f"({type(value).__qualname__}) comes back {how}{advice}"

    def _refusal(self, message: str) -> PayloadError:
        return PayloadError(f"task {self.task!r}: {storable(capped(message, 500))}")


def adapter_of(types: dict[str, Any]) -> TypeAdapter[dict[str, Any]]:
    """Reads and writes a mapping with these members, each of which may be missing."""
    make: Any = TypedDict
    shape: Any = make("Arguments", types, total=False)
    shape.__pydantic_config__ = CONFIG
    return TypeAdapter(shape)


def has_schema(kind: Any) -> bool:
    try:
        adapter_of({"value": kind})
    except pydantic.errors.PydanticUserError:
        return False
    return True


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable; those that cannot be resolved are left out."""
    while hasattr(function, "func"):  # partials
        function = function.func  # pyright: ignore[reportFunctionMemberAccess]
    target = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:
        return {name: kind for name, kind in _annotations(target).items() if not isinstance(kind, str)}


def _annotations(target: Any) -> dict[str, Any]:
    try:
        return inspect.get_annotations(target)
    except Exception:
        return {}


def reason_of(error: BaseException | None) -> str:
    """The first thing the error complains about, without the value it complains about."""
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0] or type(error).__qualname__


def survived(given: Any, taken: Any) -> bool:
    """Is what came back what went in?"""
    try:
        return bool(given == taken) or alike(given, taken)
    except Exception:
        return False


def is_any(kind: Any) -> bool:
    return kind is Any or kind is object


def holds_any(kind: Any) -> bool:
    """Is it a list, a dictionary or the like, of whatever?"""
    args = typing.get_args(kind)
    return (typing.get_origin(kind) or kind) in CONTAINERS and (not args or is_any(args[-1]))


def same_types(given: Any, taken: Any, deep: bool = True, depth: int = DEPTH) -> bool:
    """What is equal need not be of one class: a member of a `StrEnum`, say, comes back as a plain text.

    Without *deep* only what is inside is looked at.
    """
    if deep and type(given) is not type(taken):
        return False
    if not depth:
        return True
    if isinstance(given, dict):
        held: Any = given  # pyright: ignore[reportUnknownVariableType]
        return all(same_types(held[name], taken[name], depth=depth - 1) for name in held)
    if isinstance(given, (list, tuple)):
        parts: Any = given  # pyright: ignore[reportUnknownVariableType]
        return all(map(same_types, parts, taken, repeat(True), repeat(depth - 1)))
    return True


def alike(given: Any, taken: Any, depth: int = DEPTH) -> bool:
    """Equal as far as can be told: NaN is itself, and objects that do not compare are their attributes."""
    if type(given) is not type(taken) or not depth:
        return bool(given == taken)
    if isinstance(given, dict):
        named: Any = given  # pyright: ignore[reportUnknownVariableType]
        return list(named) == list(taken) and all(
            alike(named[name], taken[name], depth - 1) for name in named
        )
    if isinstance(given, (list, tuple)):
        parts: Any = given  # pyright: ignore[reportUnknownVariableType]
        return len(parts) == len(taken) and all(map(alike, parts, taken, [depth - 1] * len(parts)))
    if isinstance(given, float):
        return given == taken or (given != given and taken != taken)
    if compares_by_identity(type(given)) and hasattr(given, "__dict__"):
        return alike(vars(given), vars(taken), depth - 1)
    return bool(given == taken)


def compares_by_identity(kind: Any) -> bool:
    return bool(kind.__eq__ is object.__eq__)


def is_large(value: Any, limit: int = LIMIT) -> bool:
    """Does it take more than so many bytes of JSON, as far as some thousand looks at its parts show?"""
    left, looks = limit, LOOKS
    level: list[Any] = [value]
    while level and left >= 0 and looks:
        one: Any = level.pop()
        kind = class_of(one)
        looks -= 1
        try:
            if issubclass(kind, (str, bytes, bytearray)):
                left -= len(one)
            elif issubclass(kind, dict):
                left -= 5 * len(one)  # each with a key, a colon and a comma
                level.extend(one.values() if left >= 0 else ())
            elif issubclass(kind, (list, tuple, set, frozenset)):
                left -= 2 * len(one)
                level.extend(one if left >= 0 else ())
            elif one is not None and not issubclass(kind, (int, float)):
                left -= 2
                level.extend(attributes_of(one).values())
        except Exception:  # it has no attributes, or cannot be looked at
            continue
    return left < 0 or (limit - left) / LOOKS * len(level) > limit


def readable(value: Any, large: bool) -> Any:
    """The value as JSON where it is plain, else the text of its repr; short where it is large."""
    try:
        if large:
            return {"repr": short_repr(value)}
        text = json.dumps(value)
        return json.loads(storable(text)) if len(text) <= LIMIT else {"repr": safe_repr(value)}
    except Exception:
        return {"repr": safe_repr(value)}
