"""Whoever may write to the bucket gains nothing on the machine that mounts it."""

import io
import os
import stat
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minio import Minio

from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.words import shown_source
from tests.conftest import MountFactory

ROOT_PROGRAM = {"x-amz-meta-mode": str(0o106755), "x-amz-meta-uid": "0", "x-amz-meta-gid": "0"}
LENDING = os.ST_NOSUID | os.ST_NODEV if hasattr(os, "ST_NODEV") else os.ST_NOSUID


def store_root_program(minio_client: Minio, bucket: str, key: str) -> None:
    body = b"#!/bin/sh\nid\n"
    minio_client.put_object(bucket, key, io.BytesIO(body), len(body), metadata=dict(ROOT_PROGRAM))


def test_a_stored_set_user_id_bit_is_not_shown(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    store_root_program(minio_client, bucket, "program")
    mounted = mount(bucket, posix_metadata=True)
    assert stat.S_IMODE((mounted.path / "program").stat().st_mode) == 0o755


def test_a_stored_set_user_id_bit_that_is_not_shown_is_kept(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    store_root_program(minio_client, bucket, "program")
    mounted = mount(bucket, posix_metadata=True)
    os.utime(mounted.path / "program", (1, 1))
    headers = minio_client.stat_object(bucket, "program").metadata
    assert headers is not None
    assert headers["x-amz-meta-mode"] == ROOT_PROGRAM["x-amz-meta-mode"]


def test_root_may_ask_to_see_stored_special_bits_and_the_kernel_heeds_them_no_more(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    store_root_program(minio_client, bucket, "program")
    mounted = mount(bucket, posix_metadata=True, special_modes=True)
    assert stat.S_IMODE((mounted.path / "program").stat().st_mode) == 0o6755
    assert os.statvfs(mounted.path).f_flag & LENDING == LENDING
    assert "special-modes" in mounted.log


@pytest.mark.parametrize("prefix", ["team,suid,dev", "a\\,suid", "line\nbreak", "space tab\t"])
def test_no_prefix_is_taken_apart_into_mount_options(
    mount: MountFactory, bucket: str, prefix: str
) -> None:
    mounted = mount(f"{bucket}/{prefix}")
    (entry,) = THIS_MACHINE.mounts_at(mounted.path)
    assert unquote(entry.source) == f"{bucket}/{prefix}"
    assert os.statvfs(mounted.path).f_flag & LENDING == LENDING
    (mounted.path / "written").write_bytes(b"x")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_source_is_one_word_for_every_reader_of_mount_tables(text: str) -> None:
    shown = shown_source(text)
    assert unquote(shown) == text
    assert not set(shown) & set(",\\\"' \t\n\r#")
    assert shown.isprintable()
