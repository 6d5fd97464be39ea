"""HTTP/1.1 over our own sockets: bytes are received straight into the caller's buffer.

A ranged GET of 8 MiB takes one or two system calls without the lock. Connections are pooled, and
each is used by one thread at a time. A failed connection is never used again. A request without an
answer raises ``NoAnswerError``. Connections are spread over the addresses of a name
(``addresses``), and respect a limit of bytes a second, if there is one (``limiting``).

This package does not know S3, settings or objects: host, port, trust and timeouts come as
``Origin``, ``Trust`` and ``Timeouts``. It imports only the standard library and ``errors``.
"""
