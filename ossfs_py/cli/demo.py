"""``ossfs-py demo``."""

import click


@click.command()
def demo() -> int:
    """Load a model from an embedded store over every data path, check it, and show the speed.

    Starts an S3 server of its own on this machine and removes it again; no account is needed.
    """
    from ossfs_py.demo.demonstration import run_demo

    return run_demo()
