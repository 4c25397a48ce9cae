"""The Secrets that the daemon itself needs, read by name each time: so one that is replaced counts at once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.cluster import ApiError, Reader
from reconciler.daemon.follower import SourceError
from reconciler.inventory import NAMESPACE
from reconciler.source.git import Credential
from reconciler.source.signatures import Signers
from renderers.manifest import ObjectId


@dataclass(frozen=True, slots=True)
class Secrets:
    """`git`, `webhook` and `signers` are names of Secrets beside the records; "" for none."""

    reader: Callable[[], Reader]
    git: str = ""
    webhook: str = ""
    signers: str = ""

    def credential(self) -> Credential | None:
        """What the repository asks for: `token`, with `username` where the server wants one, or `ssh-privatekey` and
        `known_hosts`. Raises SourceError.
        """
        if not self.git:
            return None
        found = self._read(self.git)
        if "token" in found:
            return Credential.token(found.get("username", b"").decode(), found["token"].decode())
        if "ssh-privatekey" in found:
            hosts = found.get("known_hosts")
            return Credential.ssh_key(found["ssh-privatekey"].decode(), hosts.decode() if hosts else None)
        raise SourceError(f"the Secret {NAMESPACE}/{self.git} has neither `token` nor `ssh-privatekey`")

    def who_may_sign(self) -> Signers | None:
        """Whose commits are followed: `allowed_signers` for SSH, and OpenPGP keys. None: everybody's.

        Raises SourceError.
        """
        return Signers.from_secret(self._read(self.signers)) if self.signers else None

    def webhook_secrets(self) -> list[bytes]:
        """What pushes are signed with: every value of the Secret, so that one can be replaced without a gap.

        None where it cannot be read: then nobody's push is believed.
        """
        if not self.webhook:
            return []
        try:
            return [value for value in self._read(self.webhook).values() if value.strip()]
        except SourceError:
            return []

    def _read(self, name: str) -> Mapping[str, bytes]:
        target = ObjectId("v1", "Secret", NAMESPACE, name)
        try:
            secret = self.reader().get(target)
            if secret is None:
                raise SourceError(f"the Secret {NAMESPACE}/{name} does not exist")
            return {key: base64.b64decode(value, validate=True) for key, value in (secret.get("data") or {}).items()}
        except ApiError as error:
            raise SourceError(f"the Secret {NAMESPACE}/{name} cannot be read: {error}") from None
        except (TypeError, binascii.Error):
            raise SourceError(f"the Secret {NAMESPACE}/{name} has content that is no base64") from None
