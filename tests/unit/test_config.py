"""The config: defaults, refusals that name the key, paths, overrides, and a digest that speaks for the result alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from nightloom.config import RunConfig, load_config, load_preset, presets
from nightloom.core.errors import InputError, RenamedWarning

MINE = "name: mine\ndata: {events: data/ratings.csv}\n"


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "mine.yaml", overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads(name: str) -> None:
    assert load_preset(name).name == name


def test_relative_paths_are_relative_to_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    assert load_config(tmp_path / "mine.yaml").data.events == str(tmp_path / "data" / "ratings.csv")
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: 'sqlite:///shop.db?table=events'}\n")
    assert load_config(tmp_path / "mine.yaml").data.events == "sqlite:///shop.db?table=events"


def test_overrides_are_read_as_yaml() -> None:
    config = load_preset("movies-small", ["training.epochs=3", "evaluation.protocols=[leave_one_out]", "model.scorers=[graph]"])
    assert config.training.epochs == 3
    assert config.evaluation.protocols == ("leave_one_out",)
    assert config.model.scorers == ("graph",)


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        (MINE + "training: {epoch: 3}\n", (), "training.epoch: unknown key; did you mean 'epochs'?"),
        (MINE + "trainings: {}\n", (), "trainings: unknown key; did you mean 'training'?"),
        (MINE, ("training.epochs=none at all",), "training.epochs"),
        (MINE, ("training.epochs",), "section.key=value"),
        ("name: mine\ndata: {}\n", (), "name either `set`"),
        ("name: mine\ndata: {set: movies, events: a.csv}\n", (), "not both"),
        ("name: Mine!\ndata: {set: movies}\n", (), "name"),
        ("- a list\n", (), "expected keys and values"),
        ("name: [\n", (), "not valid YAML"),
        (MINE + "model: {dim: 30, heads: 4}\n", (), "multiple of heads"),
        (MINE + "training: {lm_sharded: true}\n", (), "training.lm_sharded: with tuning: frozen there is nothing to share out"),
        (
            "name: mine\ndata: {events: a.csv, event_filter: {since: 2010-13-01}}\n",
            (),
            "data.event_filter.since: Input should be a valid date",
        ),
        (MINE, ("data.event_filter.since=2010-02-30",), "data.event_filter.since: Input should be a valid date"),
        (MINE, ("training.seed=!!int none",), "--set training.seed=!!int none: not valid YAML"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str, overrides: tuple[str, ...], told: str) -> None:
    message = refusal(tmp_path, text, *overrides)
    assert told in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.workers", "10000"),
        ("training.workers", "0"),
        ("training.epochs", "1e9"),
        ("training.seed", "-1"),
        ("training.seed", "99999999999999999999999"),
        ("training.learning_rate", ".inf"),
        ("training.max_minutes", ".nan"),
        ("promotion.margin", ".inf"),
        ("promotion.margin", ".nan"),
        ("promotion.margin", "2"),
        ("promotion.resamples", "1000000000"),
        ("promotion.slice_margin", "-.inf"),
        ("prepare.positive_min_value", ".nan"),
        ("validation.value_range", "[1, .inf]"),
        ("validation.value_range", "[5, 1]"),
        ("validation.max_age_days", "1e300"),
        ("validation.max_bad_share", "{events: .nan}"),
        ("explain.samples", "1000000000000"),
        ("clicks.members", "1000000"),
        ("data.tags_separator", "''"),
        ("data.events", '"a\\0b.csv"'),
        ("data.events", '"postgresql://host/a\\0b?table=t"'),
        ("data.items", '"\\ud800.csv"'),
        ("data.columns", '{events: {user_id: "a\\0"}}'),
        ("prepare.positive_events", '["\\0"]'),
        ("pretrained.model", '"a\\0"'),
        ("evaluation.protocols", "[[[[temporal]]]]"),
    ],
)
def test_absurd_values_are_refused_by_their_key(tmp_path: Path, key: str, value: str) -> None:
    said = refusal(tmp_path, MINE, f"{key}={value}")
    assert f"{key}:" in said or f"  {key}." in said


@pytest.mark.parametrize("deep", ["[" * 3000 + "]" * 3000, "{a: " * 3000 + "}" * 3000, "\n".join(" " * at + "a:" for at in range(3000))])
def test_brackets_and_indents_without_end_are_refused(tmp_path: Path, deep: str) -> None:
    assert "too many levels deep" in refusal(tmp_path, deep)
    said = refusal(tmp_path, MINE, f"data.columns={deep}")
    assert "too many levels deep" in said
    assert len(said) < 500


def test_paths_that_can_not_be_are_refused(tmp_path: Path) -> None:
    assert "data.events" in refusal(tmp_path, "name: mine\ndata: {events: ~nobody-of-this-name/a.csv}\n")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert "data.items" in refusal(tmp_path, MINE, "data.items=round/a.csv")
    with pytest.raises(InputError, match="the config cannot be read"):
        load_config("mine\0.yaml")


def test_a_date_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: a.csv, event_filter: {since: 2010-12-01}}\n")
    only = load_config(tmp_path / "mine.yaml", ["data.event_filter.before=2011-01-31"]).data.event_filter
    assert (only.since, only.before) == (date(2010, 12, 1), date(2011, 1, 31))


@pytest.mark.parametrize("overrides", [(), ("training.epochs=5", "data.event_filter.users_share=0.5")])
def test_an_empty_section_is_one_of_defaults(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ndata:\n  events: a.csv\n  event_filter:\ntraining:\n")
    (tmp_path / "plain.yaml").write_text("name: mine\ndata: {events: a.csv}\n")
    assert load_config(tmp_path / "mine.yaml", overrides) == load_config(tmp_path / "plain.yaml", overrides)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://reader:s3cret@host/shop?table=events",
        "postgresql://reader@host/shop?table=events&password=s3cret",
        "postgresql://reader@host/shop?table=events&p%61ssword=s3cret",
        "postgresql://reader@host/shop?table=events&token=s3cret",
        "postgresql://reader@host/shop?table=events&api_key=s3cret",
        "postgresql://reader@host/shop?table=events&sig=s3cret",
    ],
)
def test_a_password_in_the_config_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    message = refusal(tmp_path, f"name: mine\ndata: {{events: '{address}'}}\n")
    assert "NIGHTLOOM_SQL_PASSWORD" in message
    assert "s3cret" not in message
    for override in (f"data.events.x={address}", f"data.events=['{address}'", f"training.epochs={address}"):
        assert "s3cret" not in refusal(tmp_path, MINE, override)
    assert "s3cret" not in refusal(tmp_path, f"name: mine\ndata: {{events: '{address}'\n: [")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: the config cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_the_digest_leaves_addresses_out_and_nothing_else() -> None:
    here = RunConfig.model_validate({"name": "mine", "data": {"events": "here/events.csv"}})
    there = RunConfig.model_validate({"name": "mine", "data": {"events": "there/events.csv"}})
    other = RunConfig.model_validate({"name": "mine", "data": {"events": "here/events.csv"}, "training": {"seed": 8}})
    assert here.digest() == there.digest() != other.digest()


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_preset("movies-small").name = "other"  # type: ignore[misc]


def test_old_names_of_keys_work_one_version_longer_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    old = "data: {events: a.csv, only: {since: 2010-12-01}}\nmodel: {companions: [graph]}\nevaluation: {floors: [ease]}\n"
    path.write_text(f"name: mine\n{old}")
    with pytest.warns(RenamedWarning) as said:
        config = load_config(path)
    assert {str(one.message).split("'")[1] for one in said} == {"only", "companions", "floors"}
    assert str(config.data.event_filter.since) == "2010-12-01"
    assert (config.model.scorers, config.evaluation.baselines) == (("graph",), ("ease",))
    with pytest.warns(RenamedWarning), pytest.raises(InputError, match="old name of 'baselines'"):
        load_config(path, ["evaluation.baselines=[als]"])
