import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clearinghouse.client.recipes import (
    RECIPES,
    integer_model,
    onnx_source,
    publish_bins,
    recipe_source,
    train,
)
from clearinghouse.errors import InputError
from clearinghouse.features import encode, features
from clearinghouse.model_columns import columns
from clearinghouse.model_columns import encode as encode_columns
from clearinghouse.schema import parse_schema
from secure_eval.integer_model import IntegerModel


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_learn_and_their_integers_say_the_same(recipe, schema, heart):
    training, test = heart(200, seed=1), heart(800, seed=2)
    trained = train(recipe, schema, training, 7)
    model = integer_model(trained, schema)
    rows = encode(schema, test)
    chance, scores = trained.predict(rows), model.score(rows)
    in_floats = roc_auc_score(test.labels, chance)
    assert in_floats > 0.65
    assert abs(roc_auc_score(test.labels, scores) - in_floats) < 0.01
    agree = (scores >= model.threshold) == (chance >= 0.5)
    assert agree.mean() > 0.99


@pytest.mark.parametrize("recipe", RECIPES)
def test_models_read_available_columns_only_and_score_them_alike(recipe, schema, heart):
    table = heart(120, seed=3)
    model = IntegerModel.from_json(recipe_source(recipe, 7)(schema, table).to_json())
    available = columns(schema)
    assert set(model.columns) <= set(available)
    places = [available.index(column) for column in model.columns]
    direct = model.score(encode(schema, table))
    assert (model.score_columns(encode_columns(schema, table)[:, places]) == direct).all()


def test_recipes_use_the_features_they_say(schema, heart):
    table, found = heart(300, seed=4), features(schema)
    kinds = {"logistic": {"value", "level", "missing"}, "gam": {"threshold", "level", "missing"}}
    kinds["trees"] = kinds["gam"]
    for recipe, allowed in kinds.items():
        model = integer_model(train(recipe, schema, table, 7), schema)
        assert {found[column.feature].kind for column in model.columns} <= allowed
    assert integer_model(train("trees", schema, table, 7), schema).kind == "trees"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("n", "prevalence"), [(1, 0.0), (1, 1.0), (30, 0.0), (30, 1.0), (2, 0.5), (3, 0.34), (40, 0.05)]
)
def test_tiny_and_one_sided_sets_work(recipe, n, prevalence, schema, heart):
    table = heart(n, seed=5, prevalence=prevalence)
    trained = train(recipe, schema, table, 7)
    rows = encode(schema, heart(50, seed=6))
    chance = trained.predict(rows)
    assert ((chance > 0) & (chance < 1)).all()
    model = publish_bins(integer_model(trained, schema), schema, table, 8)
    assert 3 <= len(model.bin_edges) <= 9
    assert len(np.unique(model.score(rows))) >= 1
    if prevalence in (0.0, 1.0):
        expected = (n * prevalence + 0.5) / (n + 1)
        assert chance == pytest.approx(np.full(50, expected))
        assert len(np.unique(model.score(rows))) == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_records_at_all_give_even_odds(recipe, schema, heart):
    trained = train(recipe, schema, None, 7)
    rows = encode(schema, heart(10))
    assert trained.predict(rows) == pytest.approx(np.full(10, 0.5))
    assert trained.predict(rows[:0]).shape == (0,)
    model = publish_bins(recipe_source(recipe, 7)(schema, None), schema, None, 8)
    assert IntegerModel.from_json(model.to_json()) == model


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_is_deterministic_for_a_seed(recipe, schema, heart):
    texts = {recipe_source(recipe, 7)(schema, heart(90, seed=8)).to_json() for _ in range(2)}
    assert len(texts) == 1


def test_published_bins_hold_equal_shares_of_the_training_scores(schema, heart):
    table = heart(400, seed=9)
    model = recipe_source("logistic", 7)(schema, table)
    published = publish_bins(model, schema, table, 8)
    assert len(published.bin_edges) == 9
    assert published.threshold_bin in published.bin_edges
    counts = np.histogram(model.score(encode(schema, table)), bins=published.edges)[0]
    assert counts.sum() == 400
    assert counts.max() <= 150
    assert publish_bins(model, schema, table, 32) is model


def test_other_recipes_are_refused(schema, heart):
    with pytest.raises(InputError, match="logistic"):
        train("forest", schema, heart(10), 7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_records_a_number_is_predicted_as_the_middle_of_its_range(recipe):
    numeric = parse_schema(
        {
            "name": "stay",
            "label": {"name": "days", "kind": "number", "low": "0", "high": "60"},
            "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
        },
        file="stay",
    )
    trained = train(recipe, numeric, None, 7)
    assert trained.predict(np.eye(2)).tolist() == [30.0, 30.0]
    model = integer_model(trained, numeric)
    residuals = model.score(np.array([[1.0, 0.0, 30.0], [0.0, 1.0, 60.0]]))
    assert residuals[0] == 0
    assert residuals[1] < 0


def test_a_schema_without_numbers_works_with_every_recipe():
    from clearinghouse.tables import from_records

    tiny = parse_schema(
        {
            "name": "tiny",
            "label": {"name": "y", "levels": ["no", "yes"]},
            "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
        },
        file="tiny",
    )
    records = [{"sex": "F" if i % 3 else "M", "y": "yes" if i % 4 else "no"} for i in range(24)]
    table = from_records(tiny, records, file="made")
    for recipe in RECIPES:
        model = recipe_source(recipe, 7)(tiny, table)
        assert model.score(encode(tiny, table)).shape == (24,)


def test_an_onnx_file_becomes_the_model_it_holds(schema, heart, tmp_path):
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    table = heart(200, seed=10)
    rows = encode(schema, table).astype(np.float32)
    fitted = LogisticRegression(max_iter=5000, C=0.1).fit(rows / 100, table.labels)
    fitted.coef_ = fitted.coef_ / 100
    path = tmp_path / "finished.onnx"
    path.write_bytes(to_onnx(fitted, rows[:1]).SerializeToString())
    model = onnx_source(path)(schema, None)
    chance = fitted.predict_proba(rows)[:, 1]
    scores = model.score(encode(schema, table))
    assert set(model.columns) <= set(columns(schema))
    assert np.corrcoef(np.argsort(np.argsort(chance)), np.argsort(np.argsort(scores)))[0, 1] > 0.999
