# SPDX-License-Identifier: Apache-2.0
"""Seals what must travel, a caller's token or a credential given in a request, to one engine's public key.

The key pair is made anew at each start of an engine and is in its memory only: what a broker may keep of a
sealed message can be opened by nobody once that process has ended. By HPKE, RFC 9180.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke, serialization
from cryptography.hazmat.primitives.asymmetric import x25519

SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


@dataclass(frozen=True)
class Bundle:
    """What came with a request, for one Job: never at rest, and not to be seen in a log.

    `token` is the caller's, where there is no trust; `clouds` are credentials by the ids of their Clouds.
    """

    token: str | None = field(default=None, repr=False)
    clouds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


class Unsealable(Exception):
    """It was sealed to another key, or for another purpose."""


class Key:
    """An engine's key pair."""

    def __init__(self) -> None:
        self._private = x25519.X25519PrivateKey.generate()
        raw = self._private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.public = base64.b64encode(raw).decode()

    def open(self, sealed: str, purpose: str) -> Bundle:
        """:raises Unsealable: it is not for this key and purpose"""
        try:
            opened = SUITE.decrypt(base64.b64decode(sealed), self._private, info=purpose.encode())
        except (InvalidTag, ValueError):
            raise Unsealable("It was not sealed for this.") from None
        return Bundle(**json.loads(opened))


def seal(bundle: Bundle, public_key: str, purpose: str) -> str:
    """As text, for who has the private key.

    :param purpose: what it is for, as the id of a Job: it can be opened for nothing else
    """
    to = x25519.X25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    said = json.dumps({"token": bundle.token, "clouds": dict(bundle.clouds)}).encode()
    return base64.b64encode(SUITE.encrypt(said, to, info=purpose.encode())).decode()
