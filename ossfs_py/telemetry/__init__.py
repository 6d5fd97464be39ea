"""What can be seen of a mount from outside: metrics, logs, the access log, stacks, waits.

Counting on the hot path is a plain addition on the trio thread. Nothing here may end a mount or
slow it down: a log that cannot be written is told once. Secrets and control characters never pass.
"""
