# SPDX-License-Identifier: Apache-2.0
"""Puts something tiny in the place of shared libraries that a wheel brings along and nobody here calls.

OpenCV's wheel links FFmpeg, an OpenSSL of its own and a BLAS, for video and linear algebra: 25 MB to load and to keep
free of holes, and no service of ours gets there. The linker still wants them, so each is replaced by a library of the
same name that defines the same functions, as far as they are asked for, and all of them are one instruction that ends
the process. What is then needed by nobody is deleted. ELF as in the System V gABI and the GNU extensions for versions.

    absent.py FOLDER/module.so NAME...      such as: absent.py cv2/cv2.abi3.so libavcodec libopenblasp
"""

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TRAP = {62: b"\x0f\x0b", 183: b"\x00\x00\x00\x00"}
"""e_machine -> x86-64's ud2, AArch64's udf."""
_PAGE = 0x10000
"""The largest page of either."""
_STRTAB, _SYMTAB, _HASH, _STRSZ, _SYMENT, _SONAME, _NEEDED = 5, 6, 4, 10, 11, 14, 1
_VERSYM, _VERDEF, _VERDEFNUM, _VERNEED, _VERNEEDNUM = (
    0x6FFFFFF0,
    0x6FFFFFFC,
    0x6FFFFFFD,
    0x6FFFFFFE,
    0x6FFFFFFF,
)


@dataclass(frozen=True)
class Import:
    """A function that a library wants from another; the version and the file it is to come from, if it says so."""

    name: str
    version: str = ""
    file: str = ""


class Library:
    """A shared library, as the linker sees it: by its dynamic section."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for what is no 64-bit little-endian ELF file."""
        self.data = path.read_bytes()
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: no 64-bit little-endian ELF file")
        self.machine = struct.unpack_from("<H", self.data, 18)[0]
        start, size, count = struct.unpack_from("<Q14xHH", self.data, 32)
        self._segments = [
            struct.unpack_from("<IIQQQQQQ", self.data, start + size * at) for at in range(count)
        ]
        dynamic = next(segment for segment in self._segments if segment[0] == 2)
        self._entries = list(struct.iter_unpack("<QQ", self.data[dynamic[2] : dynamic[2] + dynamic[5]]))
        self._entries = self._entries[: [tag for tag, _ in self._entries].index(0)]

    def needed(self) -> list[str]:
        """The files that it is linked with."""
        return [self._text(value) for tag, value in self._entries if tag == _NEEDED]

    def imports(self) -> Iterator[Import]:
        """Every name that it does not define itself."""
        versions = self._wanted_versions()
        symbols, versym = self._at(_SYMTAB), self._at(_VERSYM)
        for index in range(1, self._symbol_count()):
            name, info, _, section, _, _ = struct.unpack_from("<IBBHQQ", self.data, symbols + 24 * index)
            if section == 0 and name and info >> 4 in {1, 2}:
                key = struct.unpack_from("<H", self.data, versym + 2 * index)[0] & 0x7FFF if versym else 0
                yield Import(self._text(name), *versions.get(key, ("", "")))

    def defines(self) -> set[str]:
        """The names that it offers."""
        symbols = self._at(_SYMTAB)
        return {
            self._text(name)
            for name, _, _, section, _, _ in (
                struct.unpack_from("<IBBHQQ", self.data, symbols + 24 * at)
                for at in range(self._symbol_count())
            )
            if section
        }

    def _symbol_count(self) -> int:
        """By the section's size: the dynamic section does not tell."""
        start, size, count = struct.unpack_from("<Q10xHH", self.data, 40)
        for at in range(count):
            _, kind, _, _, _, length = struct.unpack_from("<IIQQQQ", self.data, start + size * at)
            if kind == 11:
                return int(length) // 24
        raise ValueError("a library without section headers: its symbols can't be counted")

    def _wanted_versions(self) -> dict[int, tuple[str, str]]:
        found: dict[int, tuple[str, str]] = {}
        at = self._at(_VERNEED)
        for _ in range(self._value(_VERNEEDNUM)):
            _, count, file, aux, following = struct.unpack_from("<HHIII", self.data, at)
            one = at + aux
            for _ in range(count):
                _, _, other, name, step = struct.unpack_from("<IHHII", self.data, one)
                found[other] = (self._text(name), self._text(file))
                one += step
            at += following
        return found

    def _value(self, tag: int) -> int:
        return next((value for other, value in self._entries if other == tag), 0)

    def _at(self, tag: int) -> int:
        """Where in the file the table lies that an entry points to; 0: there is none."""
        address = self._value(tag)
        for kind, _, offset, start, _, size, _, _ in self._segments:
            if kind == 1 and address and start <= address < start + size:
                return int(offset + address - start)
        return 0

    def _text(self, offset: int) -> str:
        begin = self._at(_STRTAB) + offset
        return self.data[begin : self.data.index(b"\0", begin)].decode()


def stub(name: str, machine: int, functions: list[Import]) -> bytes:
    """A shared library of that name whose functions end the process."""
    strings = _Strings()
    versions = sorted({function.version for function in functions if function.version})
    symbols = [struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)]
    numbers = [0]
    for function in functions:
        symbols.append(struct.pack("<IBBHQQ", strings.add(function.name), 0x12, 0, 1, _PAGE, 0))
        numbers.append(versions.index(function.version) + 2 if function.version else 1)
    definitions = b"".join(
        struct.pack("<HHHHIII", 1, at == 0, at + 1, 1, _hash(text), 20, 28 if at < len(versions) else 0)
        + struct.pack("<II", strings.add(text), 0)
        for at, text in enumerate([name, *versions])
    )
    soname = strings.add(name)
    count = len(symbols)
    # One bucket with all symbols in a chain: they are looked up once, when the module is loaded.
    tables = {
        _HASH: struct.pack(f"<IIII{count - 1}I", 1, count, count - 1, 0, *range(count - 1)),
        _SYMTAB: b"".join(symbols),
        _STRTAB: bytes(strings),
        _VERSYM: struct.pack(f"<{count}H", *numbers),
        _VERDEF: definitions,
    }
    head = 64 + 5 * 56
    body, places = b"", {}
    for tag, content in tables.items():
        body += b"\0" * (-(head + len(body)) % 8)
        places[tag] = head + len(body)
        body += content
    if head + len(body) > _PAGE:
        raise ValueError(f"{name}: {count} functions are more than a stub was made for")
    entries = [*places.items(), (_STRSZ, len(bytes(strings))), (_SYMENT, 24), (_SONAME, soname)]
    entries += [(_VERDEFNUM, len(versions) + 1), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return _file(machine, head, body, dynamic)


def _file(machine: int, head: int, body: bytes, dynamic: bytes) -> bytes:
    """Tables (r), code (rx) and dynamic section (rw), each on pages of its own."""
    read, code, written = 0, _PAGE, 2 * _PAGE
    trap = _TRAP[machine]
    segments = [
        (1, 4, read, head + len(body)), (1, 5, code, len(trap)), (1, 6, written, len(dynamic)),
        (2, 6, written, len(dynamic)), (0x6474E551, 6, 0, 0),
    ]  # fmt: skip
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0
    )
    for kind, flags, at, size in segments:
        header += struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, _PAGE if kind == 1 else 8)
    return (header + body).ljust(code, b"\0") + trap.ljust(_PAGE, b"\0") + dynamic


class _Strings:
    def __init__(self) -> None:
        self._data = b"\0"

    def add(self, text: str) -> int:
        at = len(self._data)
        self._data += text.encode() + b"\0"
        return at

    def __bytes__(self) -> bytes:
        return self._data


def _hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def replace(module: Path, prefixes: list[str]) -> None:
    """Replaces the libraries that the module brings along, and deletes those that are then needed by nobody.

    Raises:
        ValueError: a library is not there, or the module wants something of it that is no function.
    """
    user = Library(module)
    # Where auditwheel, which makes wheels for Linux, puts them.
    (folder,) = [path for path in module.parent.parent.glob("*.libs") if (path / user.needed()[0]).exists()]
    for prefix in prefixes:
        (name,) = [name for name in user.needed() if name.startswith(prefix)] or [""]
        if not name:
            raise ValueError(f"{module}: is not linked with {prefix}")
        offered = Library(folder / name).defines()
        wanted = [one for one in user.imports() if one.file == name or (not one.file and one.name in offered)]
        (folder / name).write_bytes(stub(name, user.machine, sorted(wanted, key=lambda one: one.name)))
    reached, further = set(), set(user.needed())
    while further:
        reached |= further
        present = [Library(folder / name) for name in further if (folder / name).exists()]
        further = {needed for library in present for needed in library.needed()} - reached
    for path in folder.iterdir():
        if path.name not in reached:
            path.unlink()


if __name__ == "__main__":
    try:
        replace(Path(sys.argv[1]), sys.argv[2:])
    except ValueError as error:
        sys.exit(f"absent: {error}")
