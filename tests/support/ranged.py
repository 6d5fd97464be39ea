"""Listings by ranges whose requests are carried out, and answered, in any order."""

import random
from collections.abc import Callable
from typing import TypeAlias, cast

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.listing import ranges
from ossfs_py.namespace.listing.walks import key_in
from ossfs_py.namespace.pending import Pending

ListPages: TypeAlias = Callable[[ListQuery], ListPage]


class Answer:
    """A request to a store that is carried out when the test likes."""

    def __init__(self, query: ListQuery) -> None:
        self.query = query
        self.page: ListPage | StoreError | None = None
        self.told: Callable[[], None] = lambda: None

    @property
    def settled(self) -> bool:
        return self.page is not None

    def when_settled(self, told: Callable[[], None]) -> None:
        self.told = told

    def result(self) -> ListPage:
        if isinstance(self.page, StoreError):
            raise self.page
        assert self.page is not None
        return self.page


class Reading:
    """One listing by ranges. Requests are carried out, and answered, in an order of their own."""

    def __init__(self, list_page: ListPages, prefix: str, draw: random.Random) -> None:
        self.list_page = list_page
        self.prefix = prefix
        self.draw = draw
        self.open: list[Answer] = []
        self.requests = 0
        self.pages = 0
        self.most_ahead = 0
        self.order = ranges.Order()
        self.between: Callable[[], None] = lambda: None

    def fetch(self, token: str | None) -> Pending[ListPage]:
        key = key_in(token)
        query = ListQuery(self.prefix, token=None if key is not None else token, start_after=key)
        self.requests += 1
        self.open.append(Answer(query))
        return cast("Pending[ListPage]", self.open[-1])

    def answer_one(self) -> None:
        self.between()
        answer = self.open.pop(self.draw.randrange(len(self.open)))
        try:
            answer.page = self.list_page(answer.query)
        except StoreError as exc:
            answer.page = exc
        answer.told()

    def keys(self) -> list[str]:
        """All that is told, page by page, each page in order."""
        pages = ranges.RangedPages(
            self.prefix, self.fetch, self.order, is_closed=lambda: False, at_once=8
        )
        told: list[str] = []
        token: str | None = None
        pending = self.fetch(token)
        used = {token}
        while True:
            while not pending.settled:
                self.answer_one()
            page: ListPage | None = None
            try:
                page = pending.result()
            except StoreError:
                if not pages.is_in_doubt(pending):
                    pending = self.fetch(token)
                    continue
            page = pages.take(pending, page)
            if page is None:
                pending = pages.next
                continue
            self.pages += 1
            told += sorted([*(info.key for info in page.objects), *page.prefixes])
            if page.next_token is None:
                return told
            assert page.next_token not in used
            token = page.next_token
            used.add(token)
            pending = pages.following(page)
            self.most_ahead = max(self.most_ahead, len(pages._slots))
