"""``ossfs-py man``."""

import shutil
import subprocess
import sys

import click


@click.command()
def man() -> None:
    """Show the manual page; when the output is piped, print its source for man(1)."""
    from ossfs_py.cli.main import cli
    from ossfs_py.cli.reference import man_page, plain_page

    page = man_page(cli)
    if not sys.stdout.isatty():
        click.echo(page, nl=False)
        return
    program = shutil.which("man")
    if program is not None:
        shown = subprocess.run([program, "-l", "-"], input=page, text=True, check=False)
        if shown.returncode == 0:
            return
    # No man(1), as in containers, or one that reads no pipe.
    click.echo_via_pager(plain_page(page))
