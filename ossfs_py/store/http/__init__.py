"""HTTP/1.1 over sockets of our own: bytes are received straight into the caller's buffer.

A ranged GET of 8 MiB is one or two system calls without the interpreter lock. Connections are
pooled, each used by one thread at a time. A connection that failed is never used again. An exchange
that gets no answer raises ``NoAnswerError``. Connections are spread over the addresses of a name
(``addresses``), and respect a limit of bytes a second if one is set (``limiting``).

Nothing here knows S3, settings or objects: host, port, trust and time-outs come as
``Origin``, ``Trust`` and ``Timeouts``. It imports the standard library and ``errors`` only.
"""
