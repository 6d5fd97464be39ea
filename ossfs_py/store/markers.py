"""Markers: the empty objects that stand for directories."""

from collections.abc import Iterable


def markers_above(keys: Iterable[str], prefix: str) -> set[str]:
    """The keys of the markers of all directories that ``keys`` are in, from ``prefix`` down; a
    marker among the keys is its own.

    SeaweedFS goes on listing an empty directory until a marker of it is deleted.
    """
    markers: set[str] = set()
    for key in keys:
        marker = key[: key.rfind("/") + 1]
        while len(marker) >= len(prefix) and marker not in markers:
            markers.add(marker)
            marker = marker[: marker.rfind("/", 0, -1) + 1]
    return markers
