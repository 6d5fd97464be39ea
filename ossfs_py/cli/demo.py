"""``ossfs-py demo``."""

import click


@click.command()
def demo() -> int:
    """Load a model from an embedded S3 server over each data path, check it, and show the
    speed.

    The server runs on this machine and is removed at the end. You need no account.
    """
    from ossfs_py.demo.demonstration import run_demo

    return run_demo()
