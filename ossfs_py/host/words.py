"""Text for libfuse, mount(8) and mount tables, quoted so that none of them takes it apart.

A bucket's prefix may hold any character. In the option string of a mount a comma would begin
another option, a backslash would take the next character along, and a line break would end a line
of the mount table.
"""

_KEPT_SIGNS = frozenset("/._-~:@+=!$&*()[]{}")
"""Signs that nothing between here and findmnt gives a meaning of its own."""


def shown_source(source: str) -> str:
    """``bucket/prefix`` as the device of a mount: letters and harmless signs stay, all else is
    percent-encoded as UTF-8.
    """
    return "".join(
        sign
        if sign.isalnum() or sign in _KEPT_SIGNS
        else "".join(f"%{byte:02X}" for byte in sign.encode(errors="surrogateescape"))
        for sign in source
    )
