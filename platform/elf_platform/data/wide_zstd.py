"""Zstandard files whose window is above 128 MiB (zstd --long=31), which pyarrow refuses: unpacked by the system's libzstd.

A window is how far back a match may reach, and the memory that unpacking may need: up to 2 GiB here.
Layout of a frame's header: RFC 8878, section 3.1.1.1.
"""

import ctypes
import ctypes.util
import functools
import io
import struct
from typing import IO, Any

_LARGEST = 1 << 27
"""Bytes of the largest window that pyarrow takes."""
_WINDOW_LOG_MAX, _LOG = 100, 31  # the parameter's number in zstd.h, and the most that the format's tools write
_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50  # with 16 numbers: a frame without text, whose length follows
_CHUNK = 1 << 17


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def is_wide(source: IO[bytes]) -> bool:
    """Whether the first frame of the file needs a window that pyarrow refuses; leaves the position at the start."""
    head, place = source.read(18), 0
    while len(head) > 8 and struct.unpack_from("<I", head)[0] & ~15 == _SKIPPABLE:
        place += 8 + struct.unpack_from("<I", head, 4)[0]
        source.seek(place)
        head = source.read(18)
    source.seek(0)
    return len(head) > 6 and _window(head) > _LARGEST


def _window(head: bytes) -> int:
    if struct.unpack_from("<I", head)[0] != _MAGIC:
        return 0
    descriptor = head[4]
    if descriptor & 0x20:  # a single segment: the window is the content, whose size follows the dictionary's number
        begin, size = 5 + (0, 1, 2, 4)[descriptor & 3], (1, 2, 4, 8)[descriptor >> 6]
        return int.from_bytes(head[begin : begin + size], "little")
    base = 1 << (10 + (head[5] >> 3))
    return base + (base >> 3) * (head[5] & 7)


@functools.cache
def _library() -> Any:
    """libzstd. Raises OSError, saying what to do, where the system has none."""
    name = ctypes.util.find_library("zstd")
    if name is None:
        raise OSError(
            "zstd frame with a window above 128 MiB, which needs the system's libzstd, and there is none: install it (apt install "
            "libzstd1), or unpack the file with zstd -d --long=31"
        )
    library = ctypes.CDLL(name)
    library.ZSTD_createDCtx.restype = ctypes.c_void_p
    for call in ("ZSTD_DCtx_setParameter", "ZSTD_decompressStream"):
        getattr(library, call).restype = ctypes.c_size_t
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


class WideZstd(io.RawIOBase):
    """The unpacked bytes of a file, frame after frame. Raises OSError for damaged data, as pyarrow does."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._zstd = source, _library()
        self._context = ctypes.c_void_p(self._zstd.ZSTD_createDCtx())
        self._checked(self._zstd.ZSTD_DCtx_setParameter(self._context, ctypes.c_int(_WINDOW_LOG_MAX), ctypes.c_int(_LOG)))
        self._input, self._hint = _Buffer(None, 0, 0), 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer`` with what is unpacked next; 0 at the end."""
        view = memoryview(buffer)
        out = ctypes.create_string_buffer(len(view))
        output = _Buffer(ctypes.cast(out, ctypes.c_char_p), len(view), 0)
        while not output.pos:
            if self._input.pos == self._input.size:
                more = self._source.read(_CHUNK)
                if not more and self._hint:
                    raise OSError("zstd stream is truncated")
                if not more:
                    return 0
                self._input = _Buffer(more, len(more), 0)
            call = self._zstd.ZSTD_decompressStream(self._context, ctypes.byref(output), ctypes.byref(self._input))
            self._hint = self._checked(call)
        view[: output.pos] = out.raw[: output.pos]
        return int(output.pos)

    def close(self) -> None:
        """Frees the window."""
        if self._context:
            self._zstd.ZSTD_freeDCtx(self._context)
            self._context = ctypes.c_void_p()
            self._source.close()
        super().close()

    def _checked(self, code: int) -> int:
        if self._zstd.ZSTD_isError(ctypes.c_size_t(code)):
            raise OSError(f"zstd decompress failed: {self._zstd.ZSTD_getErrorName(ctypes.c_size_t(code)).decode()}")
        return code
