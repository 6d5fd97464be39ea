"""Every system call that could delete or overwrite, tried on a protected mount."""

import io
import json
import subprocess
import sys

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import NOBODY
from tests.support.mounting import Mount
from tests.support.strangers import BECOME, ROOT

CALLS = """
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, EXCHANGE = -100, 2
def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags):
        raise OSError(ctypes.get_errno(), 'renameat2')
def opened(*flags):
    for each in flags:
        os.close(os.open('file', each))
calls = {
    'unlink': lambda: os.unlink('file'),
    'rmdir': lambda: os.rmdir('empty'),
    'rename': lambda: os.rename('file', 'new'),
    'rename a directory': lambda: os.rename('dir', 'new'),
    'rename over': lambda: os.rename('file', 'other'),
    'exchange': lambda: renameat2('file', 'other', EXCHANGE),
    'rename over, a new file': lambda: (open('draft', 'wb').close(), os.rename('draft', 'other')),
    'link over': lambda: os.link('file', 'new'),
    'O_WRONLY': lambda: opened(os.O_WRONLY),
    'O_RDWR': lambda: opened(os.O_RDWR),
    'O_TRUNC': lambda: opened(os.O_WRONLY | os.O_TRUNC),
    'O_RDONLY O_TRUNC': lambda: opened(os.O_RDONLY | os.O_TRUNC),
    'O_CREAT O_TRUNC': lambda: opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    'O_APPEND': lambda: opened(os.O_WRONLY | os.O_APPEND),
    'truncate': lambda: os.truncate('file', 2),
    'truncate to more': lambda: os.truncate('file', 200),
    'chmod': lambda: os.chmod('file', 0o600),
    'chmod of a directory': lambda: os.chmod('dir', 0o700),
    'chown': lambda: os.chown('file', os.getuid(), os.getgid()),
    'utime': lambda: os.utime('file', (1, 1)),
    'setxattr': lambda: os.setxattr('file', 'user.note', b'new'),
    'again, a file made here': lambda: (
        open('twice-%d' % os.getuid(), 'wb').close(), open('twice-%d' % os.getuid(), 'ab').close()
    ),
}
found = {}
for name, call in calls.items():
    try:
        call()
        found[name] = 'done'
    except OSError as exc:
        found[name] = errno.errorcode[exc.errno]
with open('made-%d' % os.getuid(), 'wb') as file:
    file.write(b'half and more')
    file.flush()
    os.fsync(file.fileno())
    os.ftruncate(file.fileno(), 4)
    os.fchmod(file.fileno(), 0o640)
print(json.dumps(found))
"""

PROGRAM = "import ctypes, os, sys; os.chdir(sys.argv[2])" + BECOME + CALLS
"""Another user may reach neither the library to import from it nor the directory by its path."""


@pytest.fixture(params=[False, True], ids=["", "write-back"])
def protected(
    request: pytest.FixtureRequest, mount: MountFactory, minio_client: Minio, bucket: str
) -> Mount:
    for key in ("file", "other", "dir/inside", "empty/"):
        minio_client.put_object(bucket, key, io.BytesIO(key.encode()), len(key))
    return mount(
        bucket,
        protect="delete,overwrite,rename",
        allow_other=True,
        uid=NOBODY,
        dir_mode="0777",
        write_back=request.param,
    )


def test_no_call_deletes_or_overwrites_neither_as_owner_nor_as_root(
    protected: Mount, minio_client: Minio, bucket: str
) -> None:
    def there() -> dict[str, tuple[str | None, str | None]]:
        return {
            str(item.object_name): (item.etag, str(item.last_modified))
            for item in minio_client.list_objects(bucket, recursive=True)
        }

    before = there()
    for uid in (NOBODY, 0):
        command = [*ROOT, sys.executable, "-c", PROGRAM, str(uid), str(protected.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr + protected.log
        found = json.loads(done.stdout)
        # Names cannot be exchanged on any mount, nor linked; that is said first.
        assert found.pop("exchange") == "EINVAL"
        assert set(found.values()) == {"EPERM"}, found
    assert protected.unmount() == 0, protected.log
    after = there()
    assert before.items() <= after.items()
    made = {"draft", *(f"{name}-{uid}" for name in ("made", "twice") for uid in (NOBODY, 0))}
    assert after.keys() - before.keys() == made
    assert minio_client.get_object(bucket, "made-0").read() == b"half"
    for kind in ("delete", "overwrite", "rename"):
        assert f"is refused: the mount is protected (--protect {kind})" in protected.log
