"""Agreement checks among ranks that are threads of one process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from knet_hvd.agreement import check_agreement
from knet_hvd.data_parallel.ranks.agreement import start_timeout_s
from knet_hvd.errors import RankMismatchError

NUMBERS = (2, 3, 7)
"""Of the ranks in the job: those of a process set need not begin with 0."""


class Board:
    """Where ranks put their texts and read those of the others."""

    def __init__(self) -> None:
        self.texts = [""] * len(NUMBERS)
        self.barrier = Barrier(len(NUMBERS), timeout=20)


class BoardRanks:
    """Implement ``Ranks`` over a board."""

    def __init__(self, board: Board, index: int) -> None:
        self.board = board
        self.index = index

    @property
    def rank(self) -> int:
        return NUMBERS[self.index]

    @property
    def ranks(self) -> Sequence[int]:
        return NUMBERS

    def gather_text(self, text: str, what: str) -> list[str]:
        self.board.texts[self.index] = text
        self.board.barrier.wait()
        texts = list(self.board.texts)
        self.board.barrier.wait()
        return texts


def run(act: Callable[[BoardRanks, int], None]) -> list[str]:
    """Run all ranks; return what each raised."""
    board = Board()

    def one(index: int) -> str:
        try:
            act(BoardRanks(board, index), index)
        except RankMismatchError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(NUMBERS)) as pool:
        return list(pool.map(one, range(len(NUMBERS))))


def check(facts: Sequence[dict[str, object]], same_names: bool) -> list[str]:
    return run(lambda ranks, i: check_agreement(ranks, facts[i], "it", same_names=same_names))


@pytest.mark.parametrize("same_names", [False, True])
def test_ranks_that_agree(same_names: bool) -> None:
    assert check([{"a": 1, "b": (2, "é")}] * 3, same_names) == ["", "", ""]
    assert check([{}] * 3, same_names) == ["", "", ""]


@pytest.mark.parametrize("same_names", [False, True])
def test_values_that_differ_are_shown_with_their_ranks(same_names: bool) -> None:
    assert check([{"a": 1}, {"a": 2}, {"a": 1}], same_names) == [
        "rank 2: ranks disagree on it. a: 1 here, 2 on rank 3.",
        "rank 3: ranks disagree on it. a: 2 here, 1 on ranks [2, 7].",
        "rank 7: ranks disagree on it. a: 1 here, 2 on rank 3.",
    ]


def test_a_fact_of_some_ranks_concerns_these() -> None:
    facts = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1}]
    first, second, third = check(facts, same_names=False)
    assert "b: 1 here, 2 on rank 3." in first
    assert "b: 2 here, 1 on rank 2." in second
    assert third == ""


def test_names_that_must_be_the_same() -> None:
    first, second, third = check([{"a": 1}, {"a": 1, "b": 2}, {"a": 1}], same_names=True)
    for error in (first, second, third):
        assert "Number of entries by rank: {2: 1, 3: 2, 7: 1}." in error
    assert "b: 2 here, nothing on ranks [2, 7]." in second


def test_an_order_that_must_be_the_same() -> None:
    facts = [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}]
    first, _, third = check(facts, same_names=True)
    assert "in another order on rank 7." in first
    assert "in another order on ranks [2, 3]." in third
    assert check(facts, same_names=False) == ["", "", ""]


@pytest.mark.parametrize(
    "garbage", ["null", "", "7", "[]", '{"a": null}', '{"a": {}}', "[" * 100_000, "\x00\ufffd"]
)
@pytest.mark.parametrize("same_names", [False, True])
def test_garbage_of_a_rank_is_one_line_on_all_others(garbage: str, same_names: bool) -> None:
    def act(ranks: BoardRanks, index: int) -> None:
        if index == 1:
            for _ in range(2):
                ranks.gather_text(garbage, "it")
        else:
            check_agreement(ranks, {"a": 1}, "it", same_names=same_names)

    line = "ranks disagree on it. rank 3 sent no facts: is it of another version?"
    assert run(act) == [f"rank 2: {line}", "", f"rank 7: {line}"]


def test_how_long_ranks_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNET_START_TIMEOUT_S", raising=False)
    assert start_timeout_s() == 30
    assert start_timeout_s(4.5) == 4.5
    monkeypatch.setenv("KNET_START_TIMEOUT_S", "120")
    assert start_timeout_s() == 120
    assert start_timeout_s(4.5) == 4.5


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_time_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNET_START_TIMEOUT_S", text)
    with pytest.raises(
        ValueError, match=f"KNET_START_TIMEOUT_S: expected seconds > 0, got '{text}'"
    ):
        start_timeout_s()
    with pytest.raises(ValueError, match="timeout_s: expected seconds > 0, got '0'"):
        start_timeout_s(0)
