# SPDX-License-Identifier: Apache-2.0
"""Real OpenStack on loopback, for development and for the functional tests.

``sandbox.Sandbox`` starts and stops it, ``ciming.Ciming`` runs the service against it, and
``python -m tests.sandbox`` does the former from a shell.
"""
