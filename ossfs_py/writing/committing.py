"""The state of a commit of a dirty file: the attempt that its callers share, and its condition."""

from dataclasses import dataclass, field

import trio

from ossfs_py.model import ALWAYS, CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.context import WriteContext


@dataclass(eq=False)
class CommitAttempt:
    """One commit that later callers may share."""

    request: CommitRequest
    done: trio.Event = field(default_factory=trio.Event)
    version: ObjectVersion | None = None
    error: Exception | None = None


async def condition_past(
    early: ObjectVersion | None, request: CommitRequest, context: WriteContext
) -> Condition:
    """The request's condition; if we stored a version ourselves in the meantime (``early``), that
    nobody replaced that one.
    """
    if early is None or request.condition == ALWAYS or early.key != request.key:
        return request.condition
    capabilities = await context.network.run(context.store.capabilities)
    return Condition(only_if_etag=early.etag) if capabilities.conditional_replace else ALWAYS
