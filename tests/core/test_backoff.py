"""Pauses double up to a maximum, differ from each other, and end with the attempts."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, strategies as st

from datasources import backoff

SECONDS = st.floats(0.001, 1000)


@given(first=SECONDS, maximum=SECONDS)
def test_each_pause_is_half_to_all_of_its_nominal_length(first: float, maximum: float) -> None:
    nominal = min(first, maximum)
    for pause in islice(backoff(first=first, maximum=maximum), 20):
        assert nominal / 2 <= pause <= nominal
        nominal = min(2 * nominal, maximum)


def test_pauses_of_clients_that_failed_together_differ() -> None:
    assert len({next(backoff(first=1.0, maximum=1.0)) for _ in range(100)}) > 1


@given(st.integers(1, 50))
def test_there_is_one_pause_less_than_attempts(attempts: int) -> None:
    assert len(list(backoff(first=1.0, maximum=2.0, attempts=attempts))) == attempts - 1


def test_without_attempts_pauses_do_not_end() -> None:
    assert len(list(islice(backoff(first=1e-3, maximum=1.0), 10_000))) == 10_000
