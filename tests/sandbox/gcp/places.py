# SPDX-License-Identifier: Apache-2.0
"""Where the side door is, and files in the folder of a stand-in: who starts one needs to know no more."""

PREFIX = "/_standin/"
KEYS = "keys.json"
PID = "pid"
