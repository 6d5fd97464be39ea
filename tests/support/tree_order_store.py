"""A store that has keys in the order of SeaweedFS 4.48."""

from tests.support.fake_store import FakeStore


class TreeOrderStore(FakeStore):
    """Goes through directories in the order of their names: all of ``d/`` before ``d-x``. Behind
    the key ``d`` it goes on behind the directory ``d`` and all that is in it.
    """

    def _order(self, key: str) -> str | list[str]:
        return key.split("/")

    def _is_behind(self, shown: str, after: str) -> bool:
        return shown.split("/") > after.split("/") and not shown.startswith(after + "/")
