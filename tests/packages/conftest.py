"""What is tested here: the packages themselves, installed as their users install them."""

import os

# They install a package on this machine, or fetch a hundred MB: only where that is asked for (make
# trydeb).
_ASKED_FOR = {"test_deb.py": "OSSFS_PY_DEB", "test_tools.py": "OSSFS_PY_WHEEL"}

collect_ignore = [name for name, variable in _ASKED_FOR.items() if not os.environ.get(variable)]
