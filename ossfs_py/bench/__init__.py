"""A user's benchmark of a mount: works on the mounted path, and what its daemon spent on them.

``works.py`` is what programs do, ``run.py`` runs them one after another, each on bytes that are
in no page cache (``pages.py``), ``observed.py`` asks the daemon. ``touch.py`` is a program of its
own: a mapped file whose bytes cannot be had ends the process that touches them.
"""
