"""Names of clips that look like several seeds of the same prompts are noticed, and others are not."""

import pytest

from avbench.subsets.seeds_in_names import seeds_note


def names(form, prompts, numbers):
    return [form.format(prompt, number) for prompt in prompts for number in numbers]


AS_THEY_ARE = "give another out (--out), and prompts (--prompts FILE.jsonl) with a line for each prompt, such as"


@pytest.mark.parametrize(
    ("stems", "counts", "remedy"),
    [
        (
            names("{}-{}", ["cat1", "cat2"], range(6)),
            (6, 2, 12),
            f'{AS_THEY_ARE} {{"id": "cat1", "prompt": "its caption"}}',
        ),
        (names("{}/{}", "ab", range(2)), (2, 2, 4), f'{AS_THEY_ARE} {{"id": "a", "prompt": "its caption"}}'),
        (names("A {} runs-{}", ["cat", "dog"], range(5)), (5, 2, 10), f'{AS_THEY_ARE} {{"prompt": "A cat runs"}}'),
        (names("seed{1}/{0}", ["c1", "c2"], range(2)), (2, 2, 4), "call them c1-0, c1-1 and so on, from 0, and give"),
        (names("{}_seed{}", "abc", [42, 1234]), (2, 3, 6), "call them a-0, a-1 and so on, from 0, and give"),
        (names("{}_seed{:04}", "abc", range(2)), (2, 3, 6), "call them a-0, a-1 and so on, from 0, and give"),
        (names("{}-{}", "ab", [1, 2, 3]), (3, 2, 6), "call them a-0, a-1 and so on, from 0, and give"),
        (names("{}_{}", ["a b", "c d"], range(3)), (3, 2, 6), f'{AS_THEY_ARE} {{"prompt": "a b"}}'),
        (names("{}-{}", "abc", range(4))[:-1], (4, 2, 8), "give another out (--out), and"),  # one seed is missing
    ],
)
def test_seeds_are_noticed_with_the_remedy_that_fits_their_names(stems, counts, remedy):
    note = seeds_note(stems)
    seeds, prompts, total = counts
    assert f"look like {seeds} seeds of {prompts} prompts, but count as {total} prompts: " in note
    assert remedy in note


@pytest.mark.parametrize(
    "stems",
    [
        names("{}-{:04}", ["clip"], range(1, 101)),
        names("{}-{}", ["clip"], range(100)),
        names("{}-{:03}", ["cat", "dog"], range(10)),  # an index
        names("{}-{}", ["cat", "dog"], range(100)),  # more than seeds are
        [f"v_YoYo_g{group:02}_c{clip:02}" for group in range(3) for clip in range(3)],
        [f"abc{number}_00000{number}" for number in range(9)],
        ["dog", "dog-1", "dog-2"],
        [*names("{}-{}", ["cat", "dog"], range(2)), *"abcd"],  # only half of them
        [*"abc"],
    ],
)
def test_other_numbers_are_no_seeds(stems):
    assert seeds_note(stems) is None
