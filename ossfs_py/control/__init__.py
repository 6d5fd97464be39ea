"""The control socket of a running mount: how the command line asks a daemon for something.

``server`` implements the protocol and knows no command. ``mount_commands``, ``cache_commands``,
``shared_commands`` and ``service_commands`` are the tables of commands; ``warming`` has the code
that two of them share. ``client`` is the other end: it finds the mount of a path, and blocks.
Requests and answers are lines of JSON. Only its owner can use the socket.
"""
