# SPDX-License-Identifier: Apache-2.0
"""What is made when it is first used, by several at once."""

import threading

from ciming import lazy


class Cloud:
    """One whose login may hang."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.made = 0

    @lazy.cached_property
    def login(self) -> str:
        """Explained."""
        self.may_answer.wait(30)
        self.made += 1
        return f"login {self.made}"


def test_it_is_made_once() -> None:
    cloud = Cloud()
    assert "login" not in cloud.__dict__
    cloud.may_answer.set()
    assert cloud.login == "login 1" == cloud.login
    assert Cloud.login.__doc__ == "Explained."


def test_one_that_hangs_stops_no_other() -> None:
    hanging, other = Cloud(), Cloud()
    waiting = threading.Thread(target=lambda: hanging.login)
    waiting.start()
    other.may_answer.set()
    done = threading.Event()

    def log_in() -> None:
        assert other.login == "login 1"
        done.set()

    threading.Thread(target=log_in, daemon=True).start()
    assert done.wait(5)
    hanging.may_answer.set()
    waiting.join()
