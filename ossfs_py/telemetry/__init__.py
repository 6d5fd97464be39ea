"""What a mount shows to the outside: metrics, logs, the access log, stacks, waits.

Counting on the hot path is a plain addition on the trio thread. Nothing here may end a mount or
slow it down: a log that cannot be written is reported once. Secrets and control characters are
removed.
"""
