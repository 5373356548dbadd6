# SPDX-License-Identifier: Apache-2.0
"""Figures, as ratios within one run on real services. No test: nothing here passes or fails."""
