"""``ossfs-py man``."""

import click


@click.command()
def man() -> None:
    """Print the manual page, for "man -l -" or a directory of manual pages."""
    from ossfs_py.cli.main import cli
    from ossfs_py.cli.reference import man_page

    click.echo(man_page(cli), nl=False)
