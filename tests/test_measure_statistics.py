"""Intervals, calibration and comparisons: equal to SciPy's, scikit-learn's or a formula's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from keras_cifar.measure.calibration import fit_temperature, negative_log_likelihood
from keras_cifar.measure.comparison import bootstrap_differences, mcnemar
from keras_cifar.measure.intervals import mean_and_deviation, wilson
from keras_cifar.measure.predictions import load_model_and_split
from keras_cifar.measure.scoring import measure
from keras_cifar.model.logits import log_softmax, predict_logits


@pytest.fixture(scope="module")
def answers(trained_run):
    """What a trained model says of its validation images: labels and logits."""
    model, examples = load_model_and_split(trained_run, split="validation", data_dir=None)
    return examples.labels, predict_logits(model, examples.images, source=trained_run.model)


def simulated(*, sharpness, count=500, seed=0):
    """Labels drawn from the probabilities of logits, and logits that exaggerate those."""
    random = np.random.RandomState(seed)
    logits = 2 * random.randn(count, 10)
    chosen = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return chosen, logits * sharpness


# Figures


def test_the_figures_are_scikit_learns(answers):
    labels, logits = answers
    probabilities = np.exp(log_softmax(logits))
    predicted = probabilities.argmax(axis=1)
    metrics = measure(logits, labels=labels, split="validation")
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert metrics.loss == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert metrics.confusion_matrix == confusion_matrix(labels, predicted).tolist()
    by_class = precision_recall_fscore_support(labels, predicted, zero_division=0)
    for column, name in enumerate(("precision", "recall", "f1", "examples")):
        found = [getattr(of, name) for of in metrics.per_class.values()]
        assert found == pytest.approx(by_class[column])


def test_the_bins_of_the_reliability_diagram_are_scikit_learns(answers):
    labels, logits = answers
    probabilities = np.exp(log_softmax(logits))
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right, said = calibration_curve(predicted == labels, confidence, n_bins=15)
    metrics = measure(logits, labels=labels, split="validation")
    bins = [one for one in metrics.calibration.bins if one.examples]
    assert [one.accuracy for one in bins] == pytest.approx(right)
    assert [one.confidence for one in bins] == pytest.approx(said)
    error = sum(one.examples * abs(one.accuracy - one.confidence) for one in bins) / len(labels)
    assert metrics.calibration.expected_calibration_error == pytest.approx(error)


# Intervals


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(case):
    successes, trials = case
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    found = wilson(successes, trials=trials)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.lower <= successes / trials <= found.upper <= 1


@pytest.mark.parametrize("trials", [50, 500, 10_000])
def test_wilsons_interval_covers_the_truth_in_95_of_100_simulations(trials):
    random = np.random.RandomState(0)
    truths = random.uniform(0.5, 0.99, size=4000)
    drawn = random.binomial(trials, truths)
    covered = [
        interval.lower <= truth <= interval.upper
        for truth, interval in (
            (truth, wilson(int(count), trials=trials))
            for truth, count in zip(truths, drawn, strict=True)
        )
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    # Worked out instead of drawn, at an accuracy that a model may have.
    ends = [wilson(count, trials=trials) for count in range(trials + 1)]
    within = [count for count, end in enumerate(ends) if end.lower <= 0.9 <= end.upper]
    assert binom.pmf(within, trials, 0.9).sum() == pytest.approx(0.95, abs=0.025)


def test_the_deviation_over_seeds_is_that_of_a_sample():
    assert mean_and_deviation([0.9, 0.92, 0.94]) == pytest.approx((0.92, 0.02))
    assert mean_and_deviation([0.9]) == (0.9, None)


# Temperature


@given(
    seed=st.integers(0, 1000),
    sharpness=st.floats(0.01, 100),
    count=st.integers(1, 40),
    are_random=st.booleans(),
)
def test_a_temperature_never_makes_the_loss_worse(seed, sharpness, count, are_random):
    labels, logits = simulated(sharpness=sharpness, count=count, seed=seed)
    if are_random:
        labels = np.random.RandomState(seed).randint(10, size=count)
    temperature = fit_temperature(logits, labels=labels)
    before = negative_log_likelihood(logits, labels=labels)
    assert negative_log_likelihood(logits / temperature, labels=labels) <= before
    assert 0.05 <= temperature <= 20


def test_the_temperature_is_the_one_that_scipy_finds_and_helps_a_real_model(answers):
    labels, logits = answers
    logits = 3 * logits  # after two epochs a model is too modest to be mistaken
    found = fit_temperature(logits, labels=labels)
    expected = minimize_scalar(
        lambda t: negative_log_likelihood(logits / t, labels=labels),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-8},
    )
    assert found == pytest.approx(expected.x, rel=1e-4)
    before, after = (
        measure(of, labels=labels, split="validation") for of in (logits, logits / found)
    )
    assert after.loss < before.loss
    assert after.accuracy == before.accuracy
    errors = [of.calibration.expected_calibration_error for of in (before, after)]
    assert errors[1] < errors[0] / 2


def test_the_temperature_of_exaggerated_probabilities_takes_the_exaggeration_back():
    labels, logits = simulated(sharpness=2.5, count=50_000)
    assert fit_temperature(logits, labels=labels) == pytest.approx(2.5, rel=0.02)


def test_a_model_that_is_never_wrong_gets_the_lowest_temperature():
    labels = np.arange(10)
    assert fit_temperature(np.eye(10), labels=labels) == pytest.approx(0.05)


def test_equal_logits_keep_their_temperature():
    assert fit_temperature(np.zeros((5, 10)), labels=np.arange(5)) == 1


# Comparisons


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_p_value_is_that_of_the_binomial_test(only_first, only_second):
    first = np.repeat([True, False, True, False], [only_first, only_second, 7, 3])
    second = np.repeat([False, True, True, False], [only_first, only_second, 7, 3])
    found = mcnemar(first, second)
    assert found[:2] == (only_first, only_second)
    tosses = only_first + only_second
    expected = binomtest(only_first, tosses).pvalue if tosses else 1.0
    assert found.p_value == pytest.approx(expected)


def test_mcnemars_test_is_quick_and_exact_for_models_that_always_differ():
    assert mcnemar(np.ones(10_000, bool), np.zeros(10_000, bool)).p_value == 0  # below 1e-308
    half = np.arange(10_000) % 2 == 0
    assert mcnemar(half, ~half).p_value == 1


def test_bootstrapped_differences_have_the_width_of_the_formula():
    random = np.random.RandomState(1)
    correct = (random.uniform(size=(2, 10_000)) < [[0.9], [0.92]]).astype(float)
    itself, other = bootstrap_differences(correct, reference=0)
    assert itself == (0, 0)
    differences = correct[1] - correct[0]
    error = 1.959964 * differences.std() / 100
    expected = (differences.mean() - error, differences.mean() + error)
    assert other == pytest.approx(expected, abs=error / 15)


def test_bootstrapped_differences_of_three_models_hold_together_in_95_of_100_simulations():
    random = np.random.RandomState(2)
    truth = np.array([[0.85], [0.87], [0.88]])
    kept = []
    for _ in range(150):
        # Correlated, as models on the same images are: an image is as hard for all.
        hardness = random.uniform(size=300)[None] * 0.7 + random.uniform(size=(3, 300)) * 0.3
        thresholds = np.array([[_quantile(share)] for share in truth[:, 0]])
        found = bootstrap_differences((hardness < thresholds).astype(float), reference=0)
        expected = (truth - truth[0])[:, 0]
        kept.append(all(low <= e <= up for (low, up), e in zip(found, expected, strict=True)))
    assert 0.89 <= np.mean(kept) <= 1


def _quantile(share, a=0.7, b=0.3):
    """Of a uniform variable within 0..a plus one within 0..b, at a share near 1."""
    return a + b - np.sqrt(2 * a * b * (1 - share))
