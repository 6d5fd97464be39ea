"""Times on the command line."""

import click

from ossfs_py.config.units import parse_moment


class Moment(click.ParamType[int]):
    """A time (2026-11-20T10:00Z), or how long ago (3d), in nanoseconds since the epoch."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """See the class."""
        try:
            return parse_moment(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
