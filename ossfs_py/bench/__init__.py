"""A user's benchmark of a mount: workloads on the mounted path, and what its daemon spent on them.

``works.py`` has the workloads. ``run.py`` runs them one after another, each on bytes that are not
in the page cache (``pages.py``). ``observed.py`` asks the daemon. ``touch.py`` is a separate
program, because a mapped file whose bytes cannot be fetched kills the process that touches them.
"""
