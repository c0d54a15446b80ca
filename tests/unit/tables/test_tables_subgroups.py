"""Which subgroup tables exist at which n: from the schema and the public size class alone."""

import pytest

from clearinghouse.demo import write_market
from clearinghouse.schema import load_schema, parse_schema
from clearinghouse.subgroups import left_out_words, published_subgroups
from dp.laws import parts


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heart")
    write_market(folder)
    return load_schema(folder / "schema.yaml")


def many_classes(levels):
    return parse_schema(
        {
            "name": "many",
            "label": {"name": "y", "levels": levels},
            "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
            "strata": [["sex"]],
            "subgroups": ["sex"],
        },
        file="many",
    )


def test_small_sets_release_fewer_tables_and_tiny_ones_none(heart):
    """Sex has 2 strata and age 4, each by 2 labels: 4 and 8 cells at a fifth of epsilon each."""
    assert heart.subgroups == ("sex", "age")
    assert published_subgroups(heart, 64) == ("sex", "age")
    assert published_subgroups(heart, 32) == ("sex",)
    assert published_subgroups(heart, 16) == ("sex",)
    assert published_subgroups(heart, 8) == ()
    assert left_out_words(heart, 64) == ""
    assert left_out_words(heart, 32).startswith("no scores by age: at about 32 patients")
    assert "sex, age" in left_out_words(heart, 8)


def test_every_table_that_exists_has_room_and_dropping_any_more_would_not_be_needed(heart):
    for size in (2**k for k in range(12)):
        kept = published_subgroups(heart, size)
        cells = {name: 2 * len(heart.stratum_names(name)) for name in heart.subgroups}
        _, part = parts(1_000_000, len(kept))
        assert all(cells[name] * 1_000_000 <= part * size for name in kept)
        if len(kept) < 2:
            _, tighter = parts(1_000_000, len(kept) + 1)
            lost = [name for name in heart.subgroups if name not in kept]
            assert any(cells[name] * 1_000_000 > tighter * size for name in (*kept, *lost))


def test_several_classes_share_epsilon_so_they_need_more_patients():
    assert published_subgroups(many_classes(["a", "b"]), 16) == ("sex",)
    assert published_subgroups(many_classes(["a", "b", "c"]), 16) == ()
    assert published_subgroups(many_classes(["a", "b", "c"]), 32) == ("sex",)
