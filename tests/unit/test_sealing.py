# SPDX-License-Identifier: Apache-2.0
"""What is sealed is opened by one engine, for one purpose."""

import pytest

from ciming import custody, sealing

BUNDLE = sealing.Bundle("swordfish", {"id-1": {"password": "mårlin", "auth": {"a": 1}}})


def test_it_comes_out_as_it_went_in() -> None:
    key = sealing.Key()
    for bundle in (BUNDLE, sealing.Bundle(), sealing.Bundle(token="t")):
        assert key.open(sealing.seal(bundle, key.public, "job-1"), "job-1") == bundle


def test_nobody_else_opens_it_nor_for_another_purpose() -> None:
    key, other = sealing.Key(), sealing.Key()
    sealed = sealing.seal(BUNDLE, key.public, "job-1")
    broken = ("A" if sealed[0] != "A" else "B") + sealed[1:]
    for with_key, what, purpose in (
        (other, sealed, "job-1"),
        (key, sealed, "job-2"),
        (key, broken, "job-1"),
        (key, "", "job-1"),
        (key, "é", "job-1"),
    ):
        with pytest.raises(sealing.Unsealable):
            with_key.open(what, purpose)


def test_no_two_are_alike_and_none_is_seen() -> None:
    key = sealing.Key()
    assert sealing.seal(BUNDLE, key.public, "job-1") != sealing.seal(BUNDLE, key.public, "job-1")
    assert "swordfish" not in repr(BUNDLE) and "rlin" not in f"{BUNDLE} {key} {vars(key)}"


def test_custody(monkeypatch: pytest.MonkeyPatch) -> None:
    custody.hold("job-1", BUNDLE)
    assert custody.of("job-1") == BUNDLE and custody.of("job-2") is None
    custody.sweep(lambda _job_id: False)
    assert custody.of("job-1") == BUNDLE        # its row may be on its way
    monkeypatch.setattr(custody, "PATIENCE", -1.0)
    custody.sweep(lambda job_id: job_id == "job-1")
    assert custody.of("job-1") == BUNDLE
    custody.sweep(lambda _job_id: False)
    assert custody.of("job-1") is None
    custody.hold("job-1", BUNDLE)
    custody.drop("job-1")
    custody.drop("job-1")
    assert custody.of("job-1") is None
