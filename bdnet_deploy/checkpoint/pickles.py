"""A reader of pickles that cannot run code.

A pickle is a program for a small stack machine whose instructions REDUCE, NEWOBJ, INST, OBJ and BUILD call
whatever the file names. This machine interprets the same instructions (Python's ``pickletools`` splits the
bytes) and calls nothing: it builds plain containers itself, tensors become :class:`LazyTensor`, every other
class and call an inert :class:`Opaque`. Unlike a subclass of ``pickle.Unpickler`` it never hashes, compares
or allocates at the file's command, so that its memory and time are bounded by the number of instructions.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

# A tensor takes about 30 instructions: enough for 60,000 of them.
MAX_INSTRUCTIONS = 2_000_000
_MAX_NAME = 512
_MAX_OPAQUE = 100
_MAX_KEY = 2**53


class DamagedError(Exception):
    """The bytes are not what they should be; becomes a ModelFileError that names the file."""


class Opaque:
    """A class, function or object that was not built: its name, and the state that the file gives it."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None

    def is_module(self) -> bool:
        """Whether it was a whole pickled ``torch.nn.Module``."""
        return isinstance(self.state, dict) and "_modules" in self.state and "_parameters" in self.state


class Global(Opaque):
    """A name that the pickle refers to, not looked up anywhere."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the elements of tensors lie: a key of the container, an element type and a number of elements.

    ``start`` and ``count`` select a part of it (legacy files only).
    """

    key: str
    dtype: str
    numel: int
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A strided view of a storage, unchecked: offset, sizes and strides are what the file says."""

    storage: Storage
    dtype: str
    offset: Any
    size: Any
    stride: Any


_STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_DTYPE_PREFIXES = ("float", "int", "uint", "bool", "bfloat", "complex")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Instructions that push their argument.
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_LITERALS = frozenset((*_NUMBERS, *_BYTES, *_TEXTS))
_IGNORED = frozenset(("PROTO", "FRAME"))


class PickleMachine:
    """Reads pickles with one budget of instructions for all of them.

    Attributes:
        storages: every storage that a tensor referred to, by key.
        opaque: names of the first 100 classes and functions that were met and not used.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.opaque: dict[str, None] = {}
        self._left = MAX_INSTRUCTIONS
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._calls: dict[str, Callable[[tuple[Any, ...]], Any]] = {
            "collections.OrderedDict": self._ordered_dict,
            "builtins.set": self._set,
            "__builtin__.set": self._set,
            "builtins.frozenset": self._set,
            "__builtin__.frozenset": self._set,
            "torch.Size": lambda args: args[0] if isinstance(args[0], tuple) else Opaque("torch.Size"),
            "torch.device": lambda args: args[0] if isinstance(args[0], str) else Opaque("torch.device"),
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
        }

    def load(self, file: IO[bytes]) -> Any:
        """Read one pickle from the file's position on, leaving the position behind it.

        Raises:
            DamagedError: not a pickle, truncated, inconsistent, or beyond the bounds.
        """
        self._stack, self._outer, self._memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                self._spend(1)
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except DamagedError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DamagedError(f"not a readable pickle ({type(error).__name__}: {str(error)[:120]})") from error
        raise DamagedError("the pickle ends without its end mark")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DamagedError(f"the pickle has more than {MAX_INSTRUCTIONS} instructions")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._outer.append(stack)
            self._stack = []
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name not in _IGNORED:
            action = getattr(self, f"_op_{name.lower()}", None)
            if action is None:
                raise DamagedError(f"the pickle uses the instruction {name}")
            action(argument)

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    # Plain containers

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _op_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _op_empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def _op_tuple1(self, _: Any) -> None:
        self._tuple(1)

    def _op_tuple2(self, _: Any) -> None:
        self._tuple(2)

    def _op_tuple3(self, _: Any) -> None:
        self._tuple(3)

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise IndexError("the stack is empty")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _op_tuple(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _op_empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _op_list(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _op_append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _op_appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise TypeError(f"appending to a {type(target).__name__}")

    def _op_empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _op_dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._update(items)

    def _op_setitem(self, _: Any) -> None:
        value = self._stack.pop()
        self._update([self._stack.pop(), value])

    def _op_setitems(self, _: Any) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_hashable(key)] = value
        elif not isinstance(target, Opaque):
            raise TypeError(f"setting items of a {type(target).__name__}")

    def _op_empty_set(self, _: Any) -> None:
        self._stack.append(set())

    def _op_additems(self, _: Any) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if isinstance(target, set):
            target.update(map(_hashable, items))
        elif not isinstance(target, Opaque):
            raise TypeError(f"adding to a {type(target).__name__}")

    def _op_frozenset(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(set(map(_hashable, items)))

    # Names, calls and objects: nothing is looked up, nothing is called

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _op_stack_global(self, _: Any) -> None:
        name = self._stack.pop()
        self._name(self._stack.pop(), name)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _MAX_NAME:
            raise TypeError("a name that is none")
        if module == "torch" and name.startswith(_DTYPE_PREFIXES):
            self._stack.append(f"torch.{name}")
        else:
            self._stack.append(Global(f"{module}.{name}"))

    def _op_reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._call(self._stack.pop(), arguments)

    def _op_newobj(self, _: Any) -> None:
        self._op_reduce(None)

    def _op_newobj_ex(self, _: Any) -> None:
        self._stack.pop()
        self._op_reduce(None)

    def _op_inst(self, argument: str) -> None:
        self._pop_mark()
        self._op_global(argument)
        self._call(self._stack.pop(), None)

    def _op_obj(self, _: Any) -> None:
        items = self._pop_mark()
        self._call(items[0], None)

    def _call(self, function: Any, arguments: Any) -> None:
        name = function.name if isinstance(function, Global) else "object"
        known = self._calls.get(name)
        if known is not None and isinstance(arguments, tuple):
            self._stack.append(known(arguments))
            return
        if name == "copyreg._reconstructor" and isinstance(arguments, tuple) and isinstance(arguments[0], Global):
            name = arguments[0].name
        if len(self.opaque) < _MAX_OPAQUE:
            self.opaque[name] = None
        self._stack.append(Opaque(name))

    def _op_build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Opaque):
            target.state = state

    # The calls that stand for plain data

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> Any:
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list):
            return Opaque("collections.OrderedDict")
        self._spend(len(pairs))
        return {_hashable(key): value for key, value in pairs}

    def _set(self, arguments: tuple[Any, ...]) -> Any:
        items = arguments[0] if arguments else []
        if not isinstance(items, list | tuple):
            return Opaque("builtins.set")
        self._spend(len(items))  # one list can be turned into many sets
        return set(map(_hashable, items))

    def _tensor(self, arguments: tuple[Any, ...]) -> Any:
        storage, offset, size, stride = arguments[:4]
        return self._view(storage, storage.dtype if isinstance(storage, Storage) else None, offset, size, stride)

    def _tensor_v3(self, arguments: tuple[Any, ...]) -> Any:
        storage, offset, size, stride = arguments[:4]
        return self._view(storage, arguments[6], offset, size, stride)

    def _view(self, storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> LazyTensor:
        if not isinstance(storage, Storage) or not isinstance(dtype, str):
            raise TypeError("a tensor without storage")
        return LazyTensor(storage, dtype.removeprefix("torch."), offset, size, stride)

    def _parameter(self, arguments: tuple[Any, ...]) -> Any:
        return arguments[0] if isinstance(arguments[0], LazyTensor) else Opaque("torch.nn.Parameter")

    def _op_persid(self, _: Any) -> None:
        raise DamagedError("the pickle refers to objects outside of the file")

    def _op_binpersid(self, _: Any) -> None:
        reference = self._stack.pop()
        if not isinstance(reference, tuple) or not reference:
            raise TypeError("a reference that is none")
        if reference[0] == "module":  # legacy files: the class of a pickled module, with its source text
            self._stack.append(reference[1] if isinstance(reference[1], Global) else Opaque("torch.nn.Module"))
            return
        if reference[0] != "storage" or len(reference) not in (5, 6):
            raise TypeError("an unknown kind of reference")
        self._stack.append(self._storage(reference))

    def _storage(self, reference: tuple[Any, ...]) -> Storage:
        _, kind, key, _, numel, *rest = reference
        view = rest[0] if rest else None
        module, _, name = kind.name.rpartition(".") if isinstance(kind, Global) else ("", "", "")
        if module not in _STORAGE_MODULES or not isinstance(key, str) or not _is_count(numel):
            raise TypeError("a storage that is none")
        start, count = 0, numel
        if view is not None:
            _, start, count = view
            if not _is_count(start) or not _is_count(count) or start + count > numel:
                raise TypeError("a part that lies outside of its storage")
        storage = Storage(key, _STORAGE_DTYPES.get(name, name), numel, start, count)
        first = self.storages.setdefault(key, storage)
        if (first.dtype, first.numel) != (storage.dtype, storage.numel):
            raise TypeError("one storage with two types")
        return storage


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_KEY


def _hashable(key: Any) -> Any:
    """The key where hashing it is cheap and cannot be steered into collisions, else an inert stand-in."""
    if isinstance(key, str | bytes | bool) or key is None or (isinstance(key, int) and abs(key) < _MAX_KEY):
        return key
    return Opaque(type(key).__name__)
