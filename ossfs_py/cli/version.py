"""``ossfs-py version``."""

import click


@click.command()
def version() -> None:
    """Print the version of ossfs-py and of what it stands on."""
    import platform
    from importlib.metadata import version as version_of

    click.echo(f"ossfs-py {version_of('ossfs-py')} (Python {platform.python_version()})")
    for package in ("pyfuse3", "trio", "boto3", "awscrt"):
        click.echo(f"  {package} {version_of(package)}")
