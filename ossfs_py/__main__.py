"""``python -m ossfs_py`` is the ``ossfs-py`` command."""

from ossfs_py.cli.main import main

if __name__ == "__main__":
    main()
