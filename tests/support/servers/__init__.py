"""S3 servers of other people, each started on loopback, and what is known to be different on each.

``python -m tests.support.servers run ceph swift`` starts one after the other in a scratch
directory, runs the contract suite and the mount suite on it, and writes what came of it to
``results.json``; ``python -m tests.support.servers page`` makes the documentation's table from that
file. ``deviations.py`` is the one list of what a server does not do: a test that is not in it must
pass.

The suites learn of the server from the environment (``tests/support/chosen.py``), so that they run
on anybody's own store as well.
"""
