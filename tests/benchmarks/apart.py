# SPDX-License-Identifier: Apache-2.0
"""A function in a process of its own: what it takes of time and memory is its own."""

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

from tests.benchmarks import main_job


def _child(function: Callable[..., None], arguments: tuple[Any, ...], answer: Any) -> None:
    seconds = main_job.timed(lambda: function(*arguments))
    answer.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def run(function: Callable[..., None], *arguments: Any) -> tuple[float, int]:
    """Seconds, and the most bytes of memory.

    :param function: of a module, as are its arguments' kinds
    """
    main_job.settle()
    context = multiprocessing.get_context("spawn")
    there, here = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(function, arguments, here))
    child.start()
    here.close()
    found: tuple[float, int] = there.recv()
    child.join()
    return found
