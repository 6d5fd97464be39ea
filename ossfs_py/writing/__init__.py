"""From written bytes to a complete object: dirty content, uploads, and what survives a crash.

``parts`` plans uploads and is pure, as are ``records``. ``dirty`` is one file that somebody writes,
``upload`` brings its parts to the store while the program goes on, ``journal`` and ``recovery`` see
to it that nothing acknowledged is lost when the daemon dies. ``commit`` is idempotent.
"""
