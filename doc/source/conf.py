# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration; run sphinx-build from the top of the repository."""

import importlib.metadata
import logging
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "ext"))

import ciming.cmd  # noqa: F401  # first: or the reference of the options looks for eventlet

extensions = [
    "cloud_properties",
    "openapi",
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "oslo_policy.sphinxext",
]

project = "CIMinG"
copyright = "The CIMinG developers"
openstackdocs_auto_name = False

# The version is that of the installed package, so that the build needs no tag.
openstackdocs_auto_version = False
try:
    version = release = importlib.metadata.version("ciming")
except importlib.metadata.PackageNotFoundError:
    version = release = ""

html_theme = "openstackdocs"
html_title = "CIMinG"
pygments_style = "native"

# The theme asks git for the commit. An sdist has none, and that is no fault of the documentation.
logging.getLogger("sphinx.openstackdocstheme.ext").addFilter(
    lambda record: "cannot get gitsha" not in record.getMessage()
)
