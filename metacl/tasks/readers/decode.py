"""A file of UTF-8 text, plain or xz-compressed, whole in memory."""

from __future__ import annotations

import lzma
from pathlib import Path

from metacl.errors import DataError


def decode(path: Path) -> str:
    """The text of a file. Raises `DataError` if it is missing, a folder, unreadable, not xz or not UTF-8."""
    if not path.exists():
        raise DataError(f"{path}: no such file. Paths are relative to {Path.cwd()}.")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected a file of texts.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    if path.suffix == ".xz":
        try:
            raw = lzma.decompress(raw)
        except lzma.LZMAError as error:
            raise DataError(f"{path}: ends in .xz but cannot be decompressed ({error}).") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        decoded = error.object  # without the byte order mark, which error.start does not count
        raise not_utf8(path, decoded.count(b"\n", 0, error.start) + 1, decoded[error.start]) from None


def not_utf8(path: Path, line: int, byte: int) -> DataError:
    """The error for a byte that UTF-8 does not have there, with the command that mends it."""
    coding = "UTF-16" if line == 1 and byte in (0xFE, 0xFF) else "LATIN1"  # a byte order mark, most likely
    if path.suffix == ".xz":
        mend = f"xz -dc {path.name} | iconv -f {coding} -t UTF-8 | xz > converted{''.join(path.suffixes[-2:])}"
    else:
        mend = f"iconv -f {coding} -t UTF-8 {path.name} > converted{path.suffix}"
    return DataError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}). Convert it, for example: {mend}")


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file. Raises `DataError` as `decode` does."""
    lines = [line.strip() for line in decode(path).split("\n")]
    return [line for line in lines if line]
