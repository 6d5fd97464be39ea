"""The control socket of a running mount: how the command line asks a daemon for something.

``server`` speaks the protocol and knows no command. ``mount_commands``, ``cache_commands``,
``shared_commands`` and ``service_commands`` are the tables of what can be asked, ``warming`` is
what two of them have in common. ``client`` is the other end: it finds the mount of a path and
blocks. Requests and answers are lines of JSON; the socket is its owner's alone.
"""
