"""Receiving through OpenSSL itself: one call decrypts all received bytes, without the interpreter.

Python's ssl decrypts one record of 16 KiB at a time, and releases and takes the lock for each; with
a dozen threads that cost nearly as much as decrypting. The handshake, the certificates and sending
stay with Python's ssl. Then the socket becomes the source of the finished connection, and a chain
of OpenSSL's own filters reads record after record in one call.
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
"""Bytes that one system call may take from the socket: eight records. 64 to 256 KiB were alike."""

BUFFER_BYTES = 4096
"""OpenSSL's BIO_f_buffer reads past the requested size, unless that is larger than this; then it
reads until nothing more has arrived.
"""
_MAX_BYTES = 1 << 30
"""Lengths are C ints in OpenSSL."""

# From OpenSSL's ssl.h, sslerr.h, err.h and bio.h: part of its stable interface.
_ERROR_SSL, _ERROR_WANT_READ, _ERROR_WANT_WRITE = 1, 2, 3
_ERROR_SYSCALL, _ERROR_ZERO_RETURN = 5, 6
_UNEXPECTED_EOF = 294
_REASON_MASK = 0x7FFFFF
_BIO_C_SET_SSL = 109
_BIO_NOCLOSE = 0

_POINTER_WORD, _CONTEXT_WORD = 3, 4
"""Offsets of the SSL* and the context in CPython's _SSLSocket, in words; after the head come a weak
reference, the SSL* and the context (PySSLSocket in Modules/_ssl.c; seen with 3.11).
"""


def open_reader(tls: ssl.SSLObject, context: ssl.SSLContext, fd: int) -> "OpenSslReader | None":
    """A reader for the connection ``tls``, which reads from the socket ``fd`` from now on.

    None if that is not possible: Python is not linked with a shared OpenSSL, or its objects have
    another layout. Then nothing has changed.
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
        """``owner`` frees the memory of ``pointer``. The caller keeps the socket."""
        self._library = library
        self._owner = owner
        self._ssl = pointer
        self._failure = 0
        """OpenSSL's code of the error that ended the connection."""
        library.SSL_set0_rbio(pointer, library.BIO_new_socket(fd, _BIO_NOCLOSE))
        # A larger buffer can only be added when there is none.
        library.SSL_free_buffers(pointer)
        library.SSL_set_default_read_buffer_len(pointer, AHEAD_BYTES)
        library.SSL_set_read_ahead(pointer, 1)
        records = library.BIO_new(library.BIO_f_ssl())
        library.BIO_ctrl(records, _BIO_C_SET_SSL, _BIO_NOCLOSE, pointer)
        self._chain = library.BIO_push(library.BIO_new(library.BIO_f_buffer()), records)
        # At exit there is nothing to free, and threads may still be reading.
        weakref.finalize(self, _free, library, self._chain).atexit = False

    @property
    def has_failed(self) -> bool:
        """Whether the next call raises, or reports the end, without waiting."""
        return self._failure != 0

    def read_into(self, view: memoryview) -> int:
        """Read the received bytes into ``view``, as far as they fit; 0 if the peer has closed.

        If ``view`` has up to ``BUFFER_BYTES``, at most one record is read.

        Raises:
            BlockingIOError: no whole record has arrived.
            ssl.SSLError: the received bytes are not those that the peer sent.
            OSError: the connection broke.
        """
        library = self._library
        size = min(len(view), _MAX_BYTES)
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        while not self._failure:
            # Errors of other connections on this thread would be taken for ours.
            library.ERR_clear_error()
            if size > BUFFER_BYTES:
                count = library.BIO_read(self._chain, address, size)
            else:
                count = library.SSL_read(self._ssl, address, size)
            system = ctypes.get_errno()
            if count < size:
                # An error after some bytes is raised by the next call.
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
            return 0  # HTTP gives the length, so a missing close_notify does no harm
        reason = library.ERR_reason_error_string(self._failure)
        raise ssl.SSLError(_ERROR_SSL, reason.decode() if reason else "TLS failed")


def _free(library: Any, chain: int) -> None:
    library.BIO_free_all(chain)
    # It sends close_notify, too late if the connection is broken. That is no error.
    library.ERR_clear_error()


def _pointer(inner: object, context: ssl.SSLContext) -> int | None:
    """The SSL* of a connection, if the objects have the expected layout."""
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
    # Functions that may wait or decrypt run without the lock; the others return at once.
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
        # A symbol is looked up in the module and in the libraries that it was linked with.
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
