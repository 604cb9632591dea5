"""The model that a run starts from."""

import dataclasses

import pytest

from keras_cifar.recipes import TrainConfig
from keras_cifar.run_record import Origin
from keras_cifar.train import origins

AS_THE_RUN = TrainConfig(dataset="sample")


@pytest.mark.parametrize(
    ("settings", "is_warned_of"),
    [
        ({}, False),
        ({"validation_fraction": 0.1}, False),
        ({"seed": 1, "validation_fraction": 0.0}, False),
        ({"validation_fraction": 0.3}, True),
        ({"seed": 1}, True),
        ({"dataset": "cifar10"}, True),
    ],
)
def test_images_that_it_knows_and_that_validate_are_warned_of(
    trained_run, capsys, settings, is_warned_of
):
    config = dataclasses.replace(AS_THE_RUN, **settings)
    origins.warn_of_known_images(Origin(trained_run.model, "a digest"), config=config)
    said = "--validation-fraction 0.2, so it knows images that validate this run"
    assert (said in capsys.readouterr().err) == is_warned_of


def test_of_a_model_that_lies_elsewhere_nothing_is_said(tmp_path, capsys):
    for name in ("model.keras", "config.json"):  # the latter not ours
        (tmp_path / name).write_text("{}")
    origins.warn_of_known_images(Origin(tmp_path / "model.keras", "a digest"), config=AS_THE_RUN)
    assert capsys.readouterr().err == ""
