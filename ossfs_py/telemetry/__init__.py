"""Metrics, logs, the access log, stacks and waits of a mount.

Counting on the hot path is a plain addition on the trio thread. Nothing here may end a mount or
slow it down: a log that cannot be written is reported once. Secrets and control characters are
removed.
"""
