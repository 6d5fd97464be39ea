"""The command line: one file a command, and no logic except reading arguments and showing answers.

Heavy imports are delayed until a command needs them, so that ``--help`` and completion are quick.
Only this package imports click and rich, and only it (and the demonstration) prints. Exit codes: 0
for success, 1 for a failure with one plain sentence, 2 for wrong arguments.
"""
