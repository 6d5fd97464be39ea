"""What is tested here: the packages themselves, installed as their users install them."""

import os

if not os.environ.get("OSSFS_PY_DEB"):
    # Installs a package on this machine: only where that is asked for (make trydeb).
    collect_ignore = ["test_deb.py"]
