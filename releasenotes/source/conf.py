# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the release notes; reno reads them out of git."""

extensions = ["openstackdocstheme", "reno.sphinxext"]

project = "CIMinG release notes"
copyright = "The CIMinG developers"
openstackdocs_auto_name = False
version = release = ""      # release notes cover all versions

html_theme = "openstackdocs"
html_title = "CIMinG release notes"
