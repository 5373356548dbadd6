# SPDX-License-Identifier: Apache-2.0
"""What a sandbox remembers between two starts."""

import base64
import dataclasses
import json
import pathlib
import secrets
from collections.abc import Iterable
from typing import Self

from tests.sandbox import files


def _fresh_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclasses.dataclass
class State:
    """Ports, choices and secrets of one sandbox, kept in state.json of its folder."""

    port_base: int = 0
    """First port of its block; 0 as long as none is chosen."""
    ports_forced: bool = False
    token_seconds: int = 3600
    second: bool = False
    barbican: bool = True
    passwords: dict[str, str] = dataclasses.field(default_factory=dict)
    barbican_key: str = dataclasses.field(default_factory=_fresh_key)
    application_credential: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, file: pathlib.Path) -> Self:
        """Read the state; a sandbox that never ran has a new one."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return cls()

    def save(self, file: pathlib.Path) -> None:
        """Write the state down."""
        files.write(file, json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    def make_passwords(self, users: Iterable[str]) -> None:
        """Make up a password for every user who has none yet."""
        for user in users:
            self.passwords.setdefault(user, secrets.token_hex(12))

    @property
    def choices(self) -> tuple[int, int, bool, bool]:
        """What running services were started with: another choice needs a restart."""
        return self.port_base, self.token_seconds, self.second, self.barbican
