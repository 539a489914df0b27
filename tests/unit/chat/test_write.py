"""How much is written down by one statement."""

import pytest

from services.chat.commands.write import portions

MIB = 1 << 20


@pytest.mark.parametrize(
    ("sizes", "portioned"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([4 * MIB, 4 * MIB, 1, 2], [[4 * MIB, 4 * MIB], [1, 2]]),
        ([1, 9 * MIB, 1], [[1], [9 * MIB], [1]]),
        ([9 * MIB, 9 * MIB], [[9 * MIB], [9 * MIB]]),
        ([], []),
    ],
    ids=["small", "several full", "larger than one", "nothing but that", "nothing"],
)
def test_a_statement_is_given_no_more_than_it_can_take(
    sizes: list[int], portioned: list[list[int]]
):
    assert list(portions(sizes, lambda size: size)) == portioned
