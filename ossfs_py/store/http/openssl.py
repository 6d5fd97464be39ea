"""Receiving through OpenSSL itself: one call decrypts all that has come, without the interpreter.

Python's ssl decrypts one record, 16 KiB, at a time, and gives up and takes the GIL for each; with
a dozen threads doing so, that cost nearly as much as decrypting. The handshake, the certificates
and everything that is sent stay with Python's ssl. Then the source of the finished connection
becomes the socket, and a chain of OpenSSL's own filters reads record after record in one call.
"""

import _ssl
import ctypes
import functools
import os
import ssl
import weakref
from types import SimpleNamespace
from typing import Any

AHEAD_BYTES = 128 * 1024
"""What one system call may take from the socket: eight records. 64 to 256 KiB measured alike."""

BUFFER_BYTES = 4096
"""OpenSSL's BIO_f_buffer reads past what it is asked for, unless that is more than this; then it
reads until there is no more at hand."""
_MAX_BYTES = 1 << 30
"""Lengths are C ints there."""

# From OpenSSL's ssl.h, sslerr.h, err.h and bio.h; they are part of its stable interface.
_ERROR_SSL, _ERROR_WANT_READ, _ERROR_WANT_WRITE = 1, 2, 3
_ERROR_SYSCALL, _ERROR_ZERO_RETURN = 5, 6
_UNEXPECTED_EOF = 294
_REASON_MASK = 0x7FFFFF
_BIO_C_SET_SSL = 109
_BIO_NOCLOSE = 0

_POINTER_WORD, _CONTEXT_WORD = 3, 4
"""Where CPython's _SSLSocket keeps its SSL* and its context, in words; after the head come a weak
reference, the SSL* and the context (PySSLSocket in Modules/_ssl.c; seen with 3.11)."""


def open_reader(tls: ssl.SSLObject, context: ssl.SSLContext, fd: int) -> "OpenSslReader | None":
    """What reads the connection ``tls`` from the socket ``fd`` from now on.

    None where that is not possible: Python is not linked with a shared OpenSSL, or lays its
    objects out in another way. Then nothing has changed.
    """
    library = _library()
    if library is None:
        return None
    inner = tls._sslobj  # type: ignore[attr-defined]
    pointer = _pointer(inner, context)
    if pointer is None:
        return None
    return OpenSslReader(library, inner, pointer, fd)


class OpenSslReader:
    """The receiving side of one connection. Belongs to one thread at a time."""

    def __init__(self, library: Any, owner: object, pointer: int, fd: int) -> None:
        """``owner`` frees what ``pointer`` points to. The socket stays the caller's."""
        self._library = library
        self._owner = owner
        self._ssl = pointer
        self._failure = 0
        """OpenSSL's code of what ended the connection."""
        library.SSL_set0_rbio(pointer, library.BIO_new_socket(fd, _BIO_NOCLOSE))
        # A larger buffer can only be had in place of none.
        library.SSL_free_buffers(pointer)
        library.SSL_set_default_read_buffer_len(pointer, AHEAD_BYTES)
        library.SSL_set_read_ahead(pointer, 1)
        records = library.BIO_new(library.BIO_f_ssl())
        library.BIO_ctrl(records, _BIO_C_SET_SSL, _BIO_NOCLOSE, pointer)
        self._chain = library.BIO_push(library.BIO_new(library.BIO_f_buffer()), records)
        # At exit there is nothing to tidy, and threads may still be reading.
        weakref.finalize(self, _free, library, self._chain).atexit = False

    @property
    def has_failed(self) -> bool:
        """Whether the next call raises, or tells the end, without waiting for anything."""
        return self._failure != 0

    def read_into(self, view: memoryview) -> int:
        """What has come, as far as it fits into ``view``; 0 when the peer has closed.

        Up to ``BUFFER_BYTES`` of it, one record is read at most.

        Raises:
            BlockingIOError: nothing has come that makes a whole record.
            ssl.SSLError: what came is not what the peer sent.
            OSError: the connection broke.
        """
        library = self._library
        size = min(len(view), _MAX_BYTES)
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        while not self._failure:
            # Errors left by others on this thread would be taken for ours.
            library.ERR_clear_error()
            if size > BUFFER_BYTES:
                count = library.BIO_read(self._chain, address, size)
            else:
                count = library.SSL_read(self._ssl, address, size)
            system = ctypes.get_errno()
            if count < size:
                # What failed after some bytes is told by the next call.
                self._failure = library.ERR_peek_last_error()
            if count > 0:
                return int(count)
            kind = library.SSL_get_error(self._ssl, count)
            if kind == _ERROR_ZERO_RETURN:
                return 0
            if kind in (_ERROR_WANT_READ, _ERROR_WANT_WRITE):
                if not isinstance(OSError(system, ""), InterruptedError):
                    raise BlockingIOError("no whole record has come")
            elif kind == _ERROR_SYSCALL:
                if system == 0:
                    return 0
                raise OSError(system, os.strerror(system))
            elif not self._failure:
                raise ssl.SSLError(kind, "TLS failed")
        library.ERR_clear_error()
        if self._failure & _REASON_MASK == _UNEXPECTED_EOF:
            return 0  # HTTP tells how much there is; a missing farewell is no harm
        reason = library.ERR_reason_error_string(self._failure)
        raise ssl.SSLError(_ERROR_SSL, reason.decode() if reason else "TLS failed")


def _free(library: Any, chain: int) -> None:
    library.BIO_free_all(chain)
    # It says farewell, too late if the connection is broken. That is nobody's error.
    library.ERR_clear_error()


def _pointer(inner: object, context: ssl.SSLContext) -> int | None:
    """The SSL* of a connection, if the objects are laid out as expected."""
    words = _CONTEXT_WORD + 1
    if type(inner).__basicsize__ < words * ctypes.sizeof(ctypes.c_void_p):
        return None
    found = (ctypes.c_void_p * words).from_address(id(inner))
    if found[_CONTEXT_WORD] != id(context):
        return None
    return found[_POINTER_WORD]


@functools.cache
def _library() -> Any:
    """The functions of the OpenSSL that Python's ssl uses; None if they cannot be reached."""
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    # What may wait or decrypt goes without the GIL; what returns at once would only lose it.
    waiting = {
        "BIO_read": (number, pointer, pointer, number),
        "SSL_read": (number, pointer, pointer, number),
    }
    quick = {
        "BIO_ctrl": (ctypes.c_long, pointer, number, ctypes.c_long, pointer),
        "BIO_f_buffer": (pointer,),
        "BIO_f_ssl": (pointer,),
        "BIO_free_all": (None, pointer),
        "BIO_new": (pointer, pointer),
        "BIO_new_socket": (pointer, number, number),
        "BIO_push": (pointer, pointer, pointer),
        "ERR_clear_error": (None,),
        "ERR_peek_last_error": (ctypes.c_ulong,),
        "ERR_reason_error_string": (text, ctypes.c_ulong),
        "SSL_free_buffers": (number, pointer),
        "SSL_get_error": (number, pointer, number),
        "SSL_set0_rbio": (None, pointer, pointer),
        "SSL_set_default_read_buffer_len": (None, pointer, ctypes.c_size_t),
        "SSL_set_read_ahead": (None, pointer, number),
    }
    functions = SimpleNamespace()
    try:
        # A symbol is looked for in the module and in the libraries it was linked with.
        path = _ssl.__file__
        for loaded, prototypes in (
            (ctypes.CDLL(path, use_errno=True), waiting),
            (ctypes.PyDLL(path), quick),
        ):
            for name, (result, *arguments) in prototypes.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
                setattr(functions, name, function)
    except (AttributeError, OSError):
        return None
    return functions
