# SPDX-License-Identifier: Apache-2.0
"""The version, as pbr derives it from git or from the installed package."""

from importlib import metadata


def version_string() -> str:
    return metadata.version("ciming")
