"""The command line: one file a command, and no logic beside reading arguments and showing answers.

Heavy imports are delayed until a command needs them, so that ``--help`` and completion are quick.
Only this room knows click and rich, and only it (and the demonstration) prints. Exit codes: 0, 1
for what went wrong with one plain sentence, 2 for arguments that cannot be right.
"""
