# SPDX-License-Identifier: Apache-2.0
"""The client of CIMinG: `sdk` for programs, `osc` for people."""
