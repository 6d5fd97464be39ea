"""Which bucket, where, with whose rights, encrypted how."""

from typing import Annotated, Literal

from ossfs_py.config import values
from ossfs_py.config.groups.option import STORE, AbsolutePath, Flag, argument, option
from ossfs_py.config.model import SettingsModel


class StoreSettings(SettingsModel):
    """Help group "Store and credentials"."""

    bucket: Annotated[str, values.bucket_name] = argument("The bucket to mount.")
    prefix: Annotated[str, values.key_prefix] = option(
        STORE,
        "PREFIX",
        "Mount only the keys below this prefix (same as BUCKET/PREFIX).",
        default="",
    )
    endpoint: Annotated[str, values.endpoint_url] | None = option(
        STORE,
        "URL",
        "Address of the store, such as http://127.0.0.1:9000 or oss-cn-hangzhou.aliyuncs.com.",
        default=None,
        shown_default="AWS S3",
    )
    read_endpoint: Annotated[str, values.endpoint_url] | None = option(
        STORE,
        "URL",
        "Read bytes from this nearer address of the same bucket (an accelerator, a gateway, a "
        "mirror) if it has the same version, by ETag. All other requests, and those that fail "
        "there, go to the store.",
        default=None,
        shown_default="none",
    )
    region: str | None = option(
        STORE,
        "NAME",
        "Region of the bucket.",
        default=None,
        shown_default="from the endpoint or the profile",
    )
    addressing: Literal["auto", "path", "virtual"] = option(
        STORE,
        "auto|path|virtual",
        "Put the bucket in the path or in the host name of requests.",
        default="auto",
    )
    profile: str | None = option(
        STORE, "NAME", "Profile of the shared AWS configuration files.", default=None
    )
    credentials_file: AbsolutePath | None = option(
        STORE,
        "FILE",
        "Password file with lines id:secret or bucket:id:secret (colons or spaces); only you may "
        "be able to read it.",
        default=None,
    )
    anonymous: Flag = option(
        STORE, "", "Send unsigned requests, for public buckets.", default=False
    )
    ca_bundle: AbsolutePath | None = option(
        STORE, "FILE", "Trust these certificates instead of the system's.", default=None
    )
    verify_tls: Flag = option(STORE, "", "Check the store's certificate.", default=True)
    conditional_reads: Literal["auto", "on", "off"] = option(
        STORE,
        "auto|on|off",
        "Whether the store refuses to read an object that has been replaced; auto tries it. If it "
        "does not, a HEAD follows each request for bytes.",
        default="auto",
    )
    request_payer: Flag = option(
        STORE,
        "",
        "Pay for the requests yourself, as requester-pays buckets demand.",
        default=False,
    )
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = option(
        STORE,
        "AES256|aws:kms|aws:kms:dsse",
        "Server-side encryption of everything that is written.",
        default=None,
        shown_default="changed objects keep theirs, new ones get the bucket's",
    )
    sse_kms_key_id: Annotated[str, values.key_id] | None = option(
        STORE,
        "ID",
        "Key of the key management service, for --sse aws:kms.",
        default=None,
        shown_default="the account's",
    )
    sse_key_file: AbsolutePath | None = option(
        STORE,
        "FILE",
        "Encrypt and decrypt all objects with your own key (SSE-C): 32 bytes, raw, in base64 or in "
        "hexadecimal; only you may be able to read the file.",
        default=None,
    )
