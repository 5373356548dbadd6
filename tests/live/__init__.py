# SPDX-License-Identifier: Apache-2.0
"""The contract against clouds that cost money: only where somebody gives keys, see `on_aws` and `on_gcp`."""
