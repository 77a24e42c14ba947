"""What a node computes, as a digest: two nodes of one application with the same one compute the same rows.

Runs on the driver, only when somebody asks. A fingerprint covers the operation, the functions' code and what they captured, the
identity of sources, the parents' fingerprints, and the versions of Python, flowkit and the packages that functions call into.
Lines, file names and function names do not count. What cannot be followed (a socket, a generator) makes a node *unique*:
its fingerprint is its own and equals no other. Equal fingerprints do not promise equal rows of functions that read a clock or a
network; so nothing is reused by fingerprint unless the user asks for that.
"""

from __future__ import annotations

import copyreg
import dataclasses
import dis
import functools
import struct
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from hashlib import blake2b
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

from flowkit.lineage.kernels import CachedOnly, CoGroup, Collection, Join, Kernel, ShuffleRead
from flowkit.lineage.nodes import Node, Shuffle, ancestors

_SIZE: Final = 16
#: Captured values deeper or larger than this are not worth following.
_MAX_DEPTH: Final = 60
_MAX_VISITS: Final = 100_000

#: Of a class: what says nothing about what it does.
_NOT_BEHAVIOUR: Final = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__qualname__",
    "__annotations__",
    "__annotations_cache__",
    "__annotate_func__",
    "__firstlineno__",
    "__static_attributes__",
    "__abstractmethods__",
    "_abc_impl",
    "__hash__",
    "__match_args__",
    "__dataclass_fields__",
    "__dataclass_params__",
}


class CannotFollow(Exception):
    """A value whose behaviour can't be told from looking at it."""


def fingerprint(node: Node, namespace: str) -> str:
    """The fingerprint of a node; kept there, so that asking again costs nothing.

    Parameters
    ----------
    node
        Its ancestors get theirs as well.
    namespace
        The application: nodes of two applications never have the same fingerprint.
    """
    for each in ancestors(node):
        if each.fingerprint is None:
            each.fingerprint = _of(each, namespace)
    assert node.fingerprint is not None
    return node.fingerprint


def _of(node: Node, namespace: str) -> str:
    walk = _Walk()
    try:
        parts = [
            namespace.encode(),
            walk.versions(),
            node.operation.encode(),
            struct.pack("<q", node.num_partitions),
            walk.digest(node.source_identity),
            walk.digest(node.partitioner),
            walk.kernel(node.kernel),
        ]
        for dependency in node.dependencies:
            parts.append(str(dependency.parent.fingerprint).encode())
            if isinstance(dependency, Shuffle):
                parts += [b"shuffle", walk.digest(dependency.partitioner), walk.digest(dependency.aggregator)]
            else:
                parts += [b"narrow", repr(dependency.known_mapping()).encode()]
    except CannotFollow:
        return f"unique-{namespace}-{node.id}"
    return _hash(b"node", parts).hex()


def digest_of(value: Any) -> str:
    """The digest of a function or value alone; raises ``CannotFollow``.

    >>> digest_of(lambda x: x + 1) == digest_of(lambda x: x + 1), digest_of(lambda x: x + 1) == digest_of(lambda x: x + 2)
    (True, False)
    """
    return _Walk().digest(value).hex()


def _hash(tag: bytes, parts: Iterable[bytes]) -> bytes:
    state = blake2b(tag, digest_size=_SIZE)
    for part in parts:
        state.update(struct.pack("<q", len(part)))
        state.update(part)
    return state.digest()


class _Walk:
    """One walk over functions and what they captured. Recursive, but never deeper than ``_MAX_DEPTH``."""

    def __init__(self) -> None:
        #: of objects that are done; they are held, since an id is reused once its object is gone
        self._done: dict[int, tuple[Any, bytes]] = {}
        #: of objects being walked, with their depth: a cycle is named by how far up it leads
        self._open: dict[int, int] = {}
        self._visits = 0
        self._called: dict[str, str] = {}

    def versions(self) -> bytes:
        from flowkit import __version__

        return f"{sys.version_info[:2]} {__version__}".encode()

    def kernel(self, kernel: Kernel) -> bytes:
        """A kernel without the numbers of shuffles, which differ from run to run; dependencies say what they stand for."""
        match kernel:
            case CachedOnly():
                raise CannotFollow  # what it was made of is forgotten, and its label is that of each turn of a loop
            case Collection(content, spans):
                return _hash(b"collection", [content.id.encode(), self.digest(spans)])
            case ShuffleRead(_, aggregator, order):
                return _hash(b"shuffle read", [self.digest(aggregator), self.digest(order)])
            case CoGroup(shuffles):
                return _hash(b"cogroup", [self.digest([each is None for each in shuffles])])
            case Join(kind, shuffles):
                return _hash(b"join", [kind.value.encode(), self.digest([each is None for each in shuffles])])
            case _:
                return self.digest(kernel)

    def digest(self, value: Any) -> bytes:
        """The digest of any value."""
        match value:
            case None | bool() | int() | str() if type(value) in _PLAIN:
                return _hash(type(value).__name__.encode(), [repr(value).encode("utf-8", "surrogatepass")])
            case float() if type(value) is float:
                return _hash(b"float", [struct.pack("<d", value)])
            case bytes() if type(value) is bytes:
                return _hash(b"bytes", [value])
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self._open:
            return _hash(b"cycle", [str(len(self._open) - self._open[id(value)]).encode()])
        self._visits += 1
        if len(self._open) >= _MAX_DEPTH or self._visits > _MAX_VISITS:
            raise CannotFollow
        self._open[id(value)] = len(self._open)
        try:
            found = self._compound(value)
        finally:
            del self._open[id(value)]
        self._done[id(value)] = value, found
        return found

    def _all(self, tag: str, values: Iterable[Any]) -> bytes:
        return _hash(tag.encode(), [self.digest(each) for each in values])

    def _compound(self, value: Any) -> bytes:
        kind = type(value)
        if kind is tuple or kind is list:
            return self._all(kind.__name__, value)
        if kind is set or kind is frozenset:
            return _hash(kind.__name__.encode(), sorted(map(self.digest, value)))
        if kind is dict:
            return self._all("dict", [each for item in value.items() for each in item])
        if kind is CodeType:
            return self._code(value)
        if kind is FunctionType:
            return self._function(value)
        if kind is MethodType:
            return self._all("method", [value.__self__, value.__func__])
        if kind is functools.partial:
            return self._all("partial", [value.func, value.args, value.keywords])
        if kind is BuiltinFunctionType:
            owner = value.__self__
            named = owner.__name__ if isinstance(owner, ModuleType) else owner
            return self._all("builtin", [named, value.__name__])
        if isinstance(value, MethodDescriptorType | WrapperDescriptorType | ClassMethodDescriptorType):
            return self._all("descriptor", [value.__objclass__, value.__name__])
        if isinstance(value, ModuleType):
            if not _is_installed(value.__name__):
                raise CannotFollow  # what is taken from there can't be told
            return self._reference("module", value.__name__, "")
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, Enum):
            return self._all("enum", [kind, value.name])
        if kind.__module__ == "numpy" and hasattr(value, "tobytes") and hasattr(value, "dtype"):
            if value.dtype.hasobject:
                return self._all("numpy objects", [value.tolist()])
            return _hash(b"numpy", [repr((value.dtype.descr, value.shape)).encode(), value.tobytes()])
        return self._object(value)

    # -- functions

    def _function(self, fn: FunctionType) -> bytes:
        if _is_installed(fn.__module__) and _is_found_by_name(fn):
            return self._reference("function", fn.__module__, fn.__qualname__)
        parts = [self.digest(fn.__code__), self.digest(fn.__defaults__), self.digest(fn.__kwdefaults__)]
        names = set(_names(fn.__code__))
        for cell in fn.__closure__ or ():
            try:
                captured = cell.cell_contents
            except ValueError:  # not assigned yet
                parts.append(b"empty")
            else:
                parts += self._used(captured, names)
        for name in sorted(names & fn.__globals__.keys()):
            parts += [name.encode(), *self._used(fn.__globals__[name], names)]
        for name in _imports(fn.__code__):
            if name not in sys.modules:
                raise CannotFollow
            parts += [name.encode(), *self._used(sys.modules[name], names)]
        return _hash(b"function", parts)

    def _used(self, value: Any, names: set[str]) -> Iterator[bytes]:
        """What a function uses; of a module of the user's own, what it may take from there, and from modules in there."""
        pending, seen = [value], set()
        for each in pending:  # grows while it is walked
            if not isinstance(each, ModuleType) or _is_installed(each.__name__):
                yield self.digest(each)
            elif each.__name__ not in seen:
                seen.add(each.__name__)
                yield each.__name__.encode()
                for name in sorted(names & each.__dict__.keys()):
                    yield name.encode()
                    pending.append(each.__dict__[name])

    def _code(self, code: CodeType) -> bytes:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return self._all("code", [shape, names, code.co_code, code.co_exceptiontable, code.co_consts])

    def _reference(self, tag: str, module: str, name: str) -> bytes:
        """Something installed, by name and version: following into libraries would lead into their caches."""
        top = module.partition(".")[0]
        if top not in self._called:
            self._called[top] = _version_of(top)
        return self._all(f"installed {tag}", [module, name, self._called[top]])

    # -- classes and instances

    def _class(self, kind: type) -> bytes:
        if _is_installed(kind.__module__) and _is_found_by_name(kind):
            return self._reference("class", kind.__module__, kind.__qualname__)
        own = vars(kind)
        members = [
            (name, own[name])
            for name in sorted(own.keys() - _NOT_BEHAVIOUR)
            if type(own[name]).__name__ not in {"member_descriptor", "getset_descriptor"}  # slots, named by __slots__
        ]
        return _hash(b"class", [self.digest(kind.__bases__), *(self.digest((name, _unwrapped(each))) for name, each in members)])

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        stands_for = getattr(kind, "__fingerprint__", None)
        if stands_for is not None:
            return self._all("object", [kind, stands_for(value)])
        if dataclasses.is_dataclass(value):
            state = [(each.name, getattr(value, each.name, None)) for each in dataclasses.fields(value)]
            return self._all("dataclass", [kind, state])
        if hasattr(value, "__wrapped__"):
            return self._all("wrapper", [kind, value.__wrapped__])
        try:
            registered = copyreg.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(4) if registered is None else registered(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise CannotFollow from error
        if isinstance(reduced, str):
            return self._reference("object", kind.__module__, reduced)
        made, arguments, *rest = reduced
        return self._all("reduced", [kind, made, arguments, *(_listed(each) for each in rest)])


_PLAIN: Final = {type(None), bool, int, str}


def _names(code: CodeType) -> Iterable[str]:
    """Global names that code uses, those of code nested in it included."""
    codes = [code]
    for each in codes:  # grows while it is walked
        yield from each.co_names
        codes.extend(constant for constant in each.co_consts if isinstance(constant, CodeType))


def _imports(code: CodeType) -> Iterator[str]:
    """Modules that code imports when it runs; a relative one gives up."""
    codes = [code]
    for each in codes:  # grows while it is walked
        level: Any = 0
        before: Any = None
        for step in dis.get_instructions(each):
            if step.opname == "IMPORT_NAME":
                if level:
                    raise CannotFollow
                yield step.argval
            if step.opname != "EXTENDED_ARG":
                level, before = before, step.argval  # the level is loaded two before, the names one before
        codes.extend(constant for constant in each.co_consts if isinstance(constant, CodeType))


def _unwrapped(member: Any) -> Any:
    if isinstance(member, staticmethod | classmethod):
        return type(member).__name__, member.__func__
    if isinstance(member, property):
        return "property", member.fget, member.fset, member.fdel
    return member


def _listed(part: Any) -> Any:
    return list(part) if hasattr(part, "__next__") else part


@functools.cache
def _is_installed(module: str | None) -> bool:
    """Whether a module comes with Python or a package; a user's own modules are followed instead."""
    if module is None or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "flowkit":
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _is_found_by_name(made: FunctionType | type) -> bool:
    """Whether a name in a module leads to it; what a function made (a lambda, a closure) has a home but no name there."""
    found: Any = sys.modules.get(made.__module__)
    for name in made.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is made


@functools.cache
def _version_of(package: str) -> str:
    if package in sys.stdlib_module_names:
        return ""  # Python's, which is in every fingerprint
    known = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(known, str):
        return known
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    try:
        return ", ".join(version(each) for each in packages_distributions().get(package, [package]))
    except PackageNotFoundError:
        return ""
