# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of what parses bytes that strangers send.

`disk_image` is the target: a program that atheris drives. `test_fuzz` runs it for a while, longer with
CIMING_TEST_ALL=1, and fails with a reproducer when anything but a refusal comes out. Run it longer, or
again with one input, by hand:

    python -m tests.fuzz.disk_image FOLDER -max_total_time=3600
    python -m tests.fuzz.disk_image FOLDER/crash-…

A crash becomes a case of `tests/corpus` when it is mended.
"""
