"""The Secrets that the daemon itself needs, read by name each time: so one that is replaced counts at once."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reconciler.cluster import ApiError, Reader
from reconciler.daemon.follower import SourceError
from reconciler.inventory import NAMESPACE
from reconciler.source.git import Credential
from reconciler.source.signatures import Signers
from reconciler.telling.logs import Log
from renderers.manifest import ObjectId

log = Log(__name__)


@dataclass(slots=True)
class Secrets:
    """`git`, `webhook` and `signers` are names of Secrets beside the records; "" for none."""

    reader: Callable[[], Reader]
    git: str = ""
    webhook: str = ""
    signers: str = ""
    #: Why no push is believed, as it was last logged; "" while they are.
    _unbelieved: str = field(default="", init=False)

    def credential(self) -> Credential | None:
        """What the repository asks for: `token`, with `username` where the server wants one, or `ssh-privatekey` and
        `known_hosts`. Raises SourceError.
        """
        if not self.git:
            return None
        found = self._read(self.git)
        if "token" in found:
            return Credential.token(self._text(found, "username"), self._text(found, "token"))
        if "ssh-privatekey" in found:
            return Credential.ssh_key(self._text(found, "ssh-privatekey"), self._text(found, "known_hosts") or None)
        raise SourceError(f"the Secret {NAMESPACE}/{self.git} has neither `token` nor `ssh-privatekey`")

    def who_may_sign(self) -> Signers | None:
        """Whose commits are followed: `allowed_signers` for SSH, and OpenPGP keys. None: everybody's.

        Raises SourceError.
        """
        return Signers.from_secret(self._read(self.signers)) if self.signers else None

    def webhook_secrets(self) -> list[bytes]:
        """What pushes are signed with: every value of the Secret, so that one can be replaced without a gap.

        None where it cannot be read: then nobody's push is believed, and the log says why.
        """
        if not self.webhook:
            return []
        values: list[bytes] = []
        why = ""
        try:
            values = [value for value in self._read(self.webhook).values() if value.strip()]
            why = "" if values else f"the Secret {NAMESPACE}/{self.webhook} is empty"
        except SourceError as error:
            why = str(error)
        # Only what is new: strangers may ask as often as they like.
        if why and why != self._unbelieved:
            log.warning("no webhook can be believed", why=why)
        self._unbelieved = why
        return values

    def _text(self, found: Mapping[str, bytes], key: str) -> str:
        """A value as text, "" where there is none."""
        try:
            return found.get(key, b"").decode()
        except UnicodeDecodeError:
            raise SourceError(f"`{key}` of the Secret {NAMESPACE}/{self.git} is no UTF-8 text") from None

    def _read(self, name: str) -> Mapping[str, bytes]:
        target = ObjectId("v1", "Secret", NAMESPACE, name)
        try:
            secret = self.reader().get(target)
            if secret is None:
                raise SourceError(f"the Secret {NAMESPACE}/{name} does not exist")
            return {key: base64.b64decode(value, validate=True) for key, value in (secret.get("data") or {}).items()}
        except ApiError as error:
            raise SourceError(f"the Secret {NAMESPACE}/{name} cannot be read: {error}") from None
        except (TypeError, ValueError):
            raise SourceError(f"the Secret {NAMESPACE}/{name} has content that is no base64") from None
