# SPDX-License-Identifier: Apache-2.0
"""Good and bad disk images, made when asked for: small, quickly, and each with its reason.

`good(folder)` and `bad(folder)` fill a new folder each, and tell what is in it.
"""

from tests.corpus.bad import bad
from tests.corpus.cases import Bad, Good
from tests.corpus.good import good

__all__ = ["Bad", "Good", "bad", "good"]
