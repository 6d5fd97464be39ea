"""Credentials of an Alibaba Cloud ECS instance's RAM role, as a botocore provider."""

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import botocore.credentials
import botocore.exceptions

METADATA_HOST = "100.100.100.200"
"""Alibaba Cloud's metadata service; a link-local address, the same on every instance."""
PRODUCT_FILE = Path("/sys/class/dmi/id/product_name")
PRODUCT = "Alibaba Cloud"
"""The vendor in the firmware of every ECS instance (cloud-init looks for "Alibaba Cloud ECS")."""
_TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
_ROLE_PATH = "/latest/meta-data/ram/security-credentials/"
_TTL_HEADER = "X-aliyun-ecs-metadata-token-ttl-seconds"
_TOKEN_HEADER = "X-aliyun-ecs-metadata-token"  # noqa: S105 - a header's name
_TOKEN_SECONDS = 300
_TIMEOUT_SECONDS = 1.0
"""The service answers in milliseconds; elsewhere nothing answers, and the mount must go on."""


class EcsRoleProvider(botocore.credentials.CredentialProvider):
    """Asks for the role's short-lived key; botocore asks again before it expires."""

    METHOD = "ecs-ram-role"

    def __init__(self, host: str = METADATA_HOST, product: Path = PRODUCT_FILE) -> None:
        super().__init__()
        self._host = host
        self._product = product

    def load(self) -> botocore.credentials.RefreshableCredentials | None:
        """The role's credentials; None on a machine that is no ECS instance or has no role."""
        if self._is_another_machine():
            return None
        try:
            found = self._fetch()
        except botocore.exceptions.MetadataRetrievalError:
            return None
        return botocore.credentials.RefreshableCredentials.create_from_metadata(
            metadata=found, refresh_using=self._fetch, method=self.METHOD
        )

    def _is_another_machine(self) -> bool:
        """Whether the firmware says that this is no ECS instance. Elsewhere the address may belong
        to any carrier or neighbour (RFC 6598), who could hand out keys of their own.
        """
        try:
            return PRODUCT not in self._product.read_text(errors="replace")
        except OSError:
            return False  # containers and small virtual machines may have no firmware data

    def _fetch(self) -> dict[str, Any]:
        try:
            # Instances in hardened mode require a token, which older images do not have.
            token = self._ask("PUT", _TOKEN_PATH, {_TTL_HEADER: str(_TOKEN_SECONDS)}, strict=False)
            headers = {_TOKEN_HEADER: token} if token else {}
            role = self._ask("GET", _ROLE_PATH, headers).split()[0]
            answer = json.loads(self._ask("GET", _ROLE_PATH + role, headers))
            return {
                "access_key": answer["AccessKeyId"],
                "secret_key": answer["AccessKeySecret"],
                "token": answer["SecurityToken"],
                "expiry_time": answer["Expiration"],
            }
        except (OSError, http.client.HTTPException, ValueError, LookupError) as exc:
            raise botocore.exceptions.MetadataRetrievalError(
                error_msg=f"the instance role cannot be asked ({type(exc).__name__})"
            ) from None

    def _ask(self, method: str, path: str, headers: dict[str, str], *, strict: bool = True) -> str:
        # No proxy: the address is local to this machine.
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status == 200:
            return text
        if strict:
            raise LookupError(path)
        return ""
