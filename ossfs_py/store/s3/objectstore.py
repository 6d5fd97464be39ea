"""An S3 or OSS bucket as an :class:`~ossfs_py.store.base.ObjectStore`."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ossfs_py.errors import AccessDeniedError, StoreError
from ossfs_py.model import (
    Body,
    ByteRange,
    CommitRequest,
    HistoryPage,
    HistoryQuery,
    ListPage,
    ListQuery,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
)
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.auth.region import configured_region
from ossfs_py.store.base import (
    MAX_COPY_BYTES,
    Capabilities,
    FirstBytes,
    ObjectStore,
    Versioning,
)
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.dialing import Dialer, Timeouts, Trust
from ossfs_py.store.http.limiting import Limits, RateLimit
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.bodies import choose_checksum
from ossfs_py.store.s3.check import check_bucket
from ossfs_py.store.s3.conditions import Conditions
from ossfs_py.store.s3.copying import COPY_PART_BYTES, Copier
from ossfs_py.store.s3.describing import Describer
from ossfs_py.store.s3.endpoint import Endpoint, resolve_endpoint
from ossfs_py.store.s3.history import History
from ossfs_py.store.s3.inline import InlineGets
from ossfs_py.store.s3.inlineputs import InlinePuts
from ossfs_py.store.s3.nearby import CONNECT_SECONDS, STALL_SECONDS, ReadEndpoint
from ossfs_py.store.s3.probing import Prober
from ossfs_py.store.s3.queries import Reader
from ossfs_py.store.s3.readpins import pins_of_read_endpoint, pins_of_store
from ossfs_py.store.s3.removals import Remover
from ossfs_py.store.s3.retry import Retrier
from ossfs_py.store.s3.standing import StandingHeaders
from ossfs_py.store.s3.traits import USELESS, KnownTraits, features_of
from ossfs_py.store.s3.uploads import Writer
from ossfs_py.store.s3.wire import WireClient
from ossfs_py.telemetry.metrics import Metrics


class S3ObjectStore:
    """The composition of reader, writer, copier and conditions over one bucket.

    The contracts are in :class:`~ossfs_py.store.base.ObjectStore` and in the parts.
    """

    def __init__(
        self,
        options: StoreOptions,
        metrics: Metrics,
        endpoint: Endpoint,
        credentials: CredentialSource,
        near: Endpoint | None = None,
        *,
        max_copy_bytes: int = MAX_COPY_BYTES,
        copy_part_bytes: int = COPY_PART_BYTES,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        trust = Trust(options.ca_bundle, options.verify_tls)
        vouching = trust.name if endpoint.scheme == "https" else ""
        place = f"{endpoint.url} ({vouching})" if vouching else endpoint.url
        # Bytes from a read endpoint are only for mounts with the same endpoint.
        self._place = place if near is None else f"{place} by way of {near.url}"
        upload, download = options.upload_limit_bytes, options.download_limit_bytes
        waited = metrics.limited_seconds.labels
        self._limits = Limits(
            RateLimit(upload, count_waited=waited("upload").inc) if upload else None,
            RateLimit(download, count_waited=waited("download").inc) if download else None,
        )
        dialer = Dialer(
            endpoint.origin(trust),
            Timeouts(options.connect_timeout_seconds, options.stall_timeout_seconds),
            limits=self._limits,
            bind=options.bind,
        )
        pool = ConnectionPool(dialer, options.concurrency)
        standing = StandingHeaders(options)
        self._retrier = Retrier(
            metrics, options.retry_budget_seconds, credentials.renew, options.concurrency
        )
        self._wire = WireClient(
            endpoint,
            dialer,
            pool,
            credentials.current,
            self._retrier,
            standing,
        )
        self._near = None
        if near is not None:
            times = Timeouts(CONNECT_SECONDS, STALL_SECONDS)
            dialer = Dialer(near.origin(trust), times, limits=self._limits, bind=options.bind)
            pool = ConnectionPool(dialer, options.concurrency)
            current = credentials.current
            wire = WireClient(near, dialer, pool, current, self._retrier, standing)
            kept = KnownTraits(self._place, options.traits_dir, afresh=options.probe_afresh)
            choice = options.conditional_reads
            pins = pins_of_read_endpoint(near.url, wire, kept, choice)
            self._near = ReadEndpoint(near.url, wire, metrics, pins)
        traits = self._traits = KnownTraits(place, options.traits_dir, afresh=options.probe_afresh)
        prober = self._prober = Prober(self._wire, self._retrier, options)
        pins = pins_of_store(self._wire, prober, traits, options.conditional_reads)
        self._reader = Reader(self._wire, self._retrier, metrics, pins, self._near)
        self._inline: InlineGets | None = None
        if near is None and self._limits == Limits():
            self._inline = InlineGets(
                self._wire,
                pool,
                credentials,
                self._retrier,
                pins,
                metrics,
                options.stall_timeout_seconds,
            )
        self._history = History(self._wire, self._retrier)
        self._conditions = Conditions(
            prober, traits, options, self._reader.head, is_oss=endpoint.is_oss
        )
        describer = self._describer = Describer(self._wire, self._reader, prober, traits, options)
        self._writer = Writer(
            self._wire,
            self._retrier,
            self._reader,
            self._conditions,
            options,
            metrics,
            choose_checksum(options, is_oss=endpoint.is_oss, is_tls=endpoint.scheme == "https"),
            traits,
            describer,
            prober,
        )
        self._inline_puts: InlinePuts | None = None
        if self._inline is not None:
            self._inline_puts = InlinePuts(
                self._wire,
                pool,
                credentials,
                self._retrier,
                self._writer,
                options.stall_timeout_seconds,
            )
        self._remover = Remover(self._wire, self._retrier, traits)
        self._copier = Copier(
            self._wire,
            self._retrier,
            self._reader,
            self._writer,
            describer,
            prober,
            traits,
            options,
            max_copy_bytes=max_copy_bytes,
            copy_part_bytes=copy_part_bytes,
        )

    @property
    def place(self) -> str:
        return self._place

    @property
    def wants_crc32c(self) -> bool:
        return self._writer.wants_crc32c

    @property
    def equal_parts(self) -> bool:
        known = self._traits.now.part_sizes
        return known == "equal" if known is not None else self._endpoint.is_r2

    @property
    def first_bytes(self) -> FirstBytes:
        """See the protocol."""
        return self._reader.first_bytes

    @property
    def inline_reads(self) -> InlineGets | None:
        return self._inline

    @property
    def inline_writes(self) -> InlinePuts | None:
        return self._inline_puts

    def capabilities(self, *, thorough: bool = False) -> Capabilities:
        if thorough:
            sizes = self._prober.part_sizes()
            if sizes is not None:
                self._traits.learn(part_sizes=sizes)
            self._traits.learn(markers=self._prober.markers())
            with contextlib.suppress(AccessDeniedError):  # about tags only
                self._traits.learn(tag_counts=self._prober.tag_counts())
            reads = self._prober.reads_of_scratch()
            if reads is not None:
                self._traits.learn(reads=reads)
        found = self._conditions.found()
        self._conditions.completions_checked()
        copies = self._copier.can_copy_parts()
        return Capabilities(
            conditional_create=found.create not in USELESS,
            conditional_replace=found.replace not in USELESS,
            part_copy=copies,
            features=tuple(features_of(self._traits.now)),
        )

    def expect_new_objects(self) -> None:
        self._conditions.found()

    def check(self, prefix: str, timeout_seconds: float) -> bool:
        wire, endpoint = self._wire, self._endpoint
        return check_bucket(wire, self._credentials, endpoint, prefix, timeout_seconds)

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        return self._reader.head(key, version_id)

    def versioning(self) -> Versioning:
        return self._history.versioning()

    def list_versions(self, query: HistoryQuery) -> HistoryPage:
        return self._history.list_versions(query)

    def list_page(self, query: ListQuery) -> ListPage:
        return self._reader.list_page(query)

    def owner(self, key: str) -> str | None:
        return self._reader.owner(key)

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        return self._reader.get_range_into(version, start, buffer)

    def get_range_gradually(
        self, version: ObjectVersion, start: int, buffer: memoryview, arrival: Arrival
    ) -> ObjectInfo | None:
        return self._reader.get_range_into(version, start, buffer, arrival)

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        return self._writer.put(request, body)

    def start_multipart(self, request: CommitRequest) -> MultipartUpload:
        return self._writer.start_multipart(request)

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> Part:
        return self._writer.upload_part(upload, number, body)

    def copy_part(
        self, upload: MultipartUpload, number: int, source: ObjectVersion, span: ByteRange
    ) -> Part:
        return self._copier.copy_part(upload, number, source, span)

    def complete(
        self, upload: MultipartUpload, parts: Sequence[Part], request: CommitRequest
    ) -> ObjectVersion:
        return self._writer.complete(upload, parts, request)

    def abort(self, upload: MultipartUpload) -> None:
        self._writer.abort(upload)

    def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        like: ObjectInfo | None = None,
    ) -> ObjectVersion:
        return self._copier.copy(
            source, key, metadata=metadata, content_type=content_type, like=like
        )

    def delete(self, key: str) -> None:
        self._writer.delete(key)

    def delete_version(self, key: str, version_id: str) -> None:
        self._history.delete_version(key, version_id)

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        return self._remover.delete_many(keys)

    def denied_descriptions(self, key: str) -> list[StoreError]:
        return self._describer.denied(key)

    def refresh_credentials(self) -> None:
        self._credentials.refresh()

    def close(self) -> None:
        self._traits.close()
        self._limits.close()
        self._wire.close()
        if self._inline is not None:
            self._inline.close()
        if self._inline_puts is not None:
            self._inline_puts.end()
        if self._near is not None:
            self._near.close()


def open_bucket(options: StoreOptions, metrics: Metrics) -> ObjectStore:
    """As :func:`ossfs_py.store.open_store` says."""
    region = configured_region(options.profile) if options.region is None else None
    endpoint = resolve_endpoint(options, region)
    near = None
    if options.read_endpoint is not None:
        near = resolve_endpoint(replace(options, endpoint=options.read_endpoint), region)
    credentials = CredentialSource(options, metrics, oss_first=endpoint.is_oss)
    return S3ObjectStore(options, metrics, endpoint, credentials, near)
