# SPDX-License-Identifier: Apache-2.0
"""The client, over real HTTP."""
