"""``ossfs-py version``, and what ``ossfs-py --version`` says."""

import click


@click.command()
def version() -> None:
    """Print the versions of ossfs-py and of the libraries it uses."""
    from importlib.metadata import version as version_of

    click.echo(version_line())
    for package in ("pyfuse3", "trio", "boto3", "awscrt"):
        click.echo(f"  {package} {version_of(package)}")


def version_line() -> str:
    """The version of ossfs-py and of Python."""
    import platform
    from importlib.metadata import version as version_of

    return f"ossfs-py {version_of('ossfs-py')} (Python {platform.python_version()})"
