"""Which links the doctor times, and what it says of slow ranks and links."""

from itertools import combinations

import pytest

from knet_hvd.doctor.speed_checks import check_links, check_speeds, pairs_to_measure

GB = 1e9


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_few_ranks_have_all_links_timed(num_ranks: int) -> None:
    assert pairs_to_measure(num_ranks) == list(combinations(range(num_ranks), 2))


def test_of_many_ranks_each_has_two_links_timed() -> None:
    pairs = pairs_to_measure(64)
    assert len(set(pairs)) == 64
    assert all(low < high for low, high in pairs)
    ends = [rank for pair in pairs for rank in pair]
    assert {ends.count(rank) for rank in range(64)} == {2}


@pytest.mark.parametrize(("seconds", "slow"), [(0.9, False), (2.5, True)])
def test_a_far_slower_rank_is_named(seconds: float, slow: bool) -> None:
    finding = check_speeds([1.0, 1.1, seconds, 1.0])
    assert finding.level == ("warning" if slow else "ok")
    assert ("rank 2 computes 2.5 times slower" in finding.found) == slow


def test_of_two_ranks_the_slower_one_is_named() -> None:
    assert check_speeds([3.0, 1.0]).found.startswith("rank 0 computes 3.0 times")


def links(num_ranks: int, rate: float) -> dict[tuple[int, int], float]:
    return dict.fromkeys(combinations(range(num_ranks), 2), rate)


def test_a_far_slower_link_is_named() -> None:
    rates = links(4, GB) | {(1, 3): GB / 10}
    finding = check_links(rates, ["a", "b", "c", "d"])
    assert finding.level == "warning"
    assert "1-3 is 10.0 times slower" in finding.found
    assert finding.found.count("times slower") == 1


def test_links_between_machines_are_not_compared_with_those_within() -> None:
    hosts = ["a", "a", "b", "b"]
    rates = {
        (low, high): 10 * GB if hosts[low] == hosts[high] else GB
        for low, high in combinations(range(4), 2)
    }
    assert check_links(rates, hosts).level == "ok"
    assert check_links(rates, list("abcd")).level == "ok"  # 4 of 6 are as slow
    assert check_links(rates | {(0, 3): GB / 8}, hosts).level == "warning"


def test_a_single_link_has_nothing_to_be_compared_with() -> None:
    assert check_links({(0, 1): 1.0}, ["a", "b"]).level == "ok"
