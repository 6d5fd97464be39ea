"""Single requests of the write side, in the foreground and in the background."""

import logging
from dataclasses import replace
from functools import partial

import trio

from ossfs_py.errors import StoreError
from ossfs_py.model import Body, CommitRequest, Condition, ObjectVersion
from ossfs_py.store.putting import PutJob
from ossfs_py.writing.context import WriteContext

log = logging.getLogger(__name__)


async def put_object(
    context: WriteContext,
    request: CommitRequest,
    body: Body,
    condition: Condition,
) -> ObjectVersion:
    """One PUT, waited for even when cancelled: its answer decides the base.

    Raises:
        ConditionFailedError, StoreError, OSError: as :meth:`ObjectStore.put`.
    """
    if condition != request.condition:
        request = replace(request, condition=condition)
    sending = PutJob(context.store, context.puts, request, body)
    return await context.network.run_to_end(sending.put, inline=sending.begin)


async def with_metadata(
    context: WriteContext, version: ObjectVersion, begun: CommitRequest, request: CommitRequest
) -> ObjectVersion:
    """Give a completed upload the metadata of its commit, if it began with other metadata.

    Waited for even when cancelled.

    Raises:
        StoreError: the object keeps its metadata.
    """
    if begun.metadata == request.metadata and begun.content_type == request.content_type:
        return version
    with trio.CancelScope(shield=True):
        version = await context.network.run(
            partial(
                context.store.copy,
                version,
                request.key,
                metadata=request.metadata,
                content_type=request.content_type,
                like=request.like,
            )
        )
    return version  # noqa: RET504 - a return inside the scope is one mypy cannot see


def delete_hidden(context: WriteContext, key: str) -> None:
    """Delete a hidden object in the background; the next mount does it if this one cannot."""
    context.tidying.begin()
    try:
        context.network.submit(
            partial(_delete, context, key),
            lambda _result: context.tidying.end(),
            urgent=False,
        )
    except RuntimeError:
        # The mount has closed its threads; the journal tells the next one of the object.
        context.tidying.end()


def _delete(context: WriteContext, key: str) -> None:
    try:
        context.store.delete(key)
        context.journal.forget_scratch(key)
    except (StoreError, OSError) as exc:
        log.warning("a hidden object of this mount stays for the next mount to delete: %s", exc)
