"""Estimates and bands against their closed forms."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from preprocessing.duplicates import Bands, NearConfig, best_bands
from preprocessing.duplicates import minhash as minhash_module
from preprocessing.duplicates.minhash import band_keys, signatures
from preprocessing.texts import Texts


def sign(texts: list[str], **options: object) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    near = NearConfig(**({"ngram": 1} | options))  # type: ignore[arg-type]
    return signatures(Texts.of(pa.array(texts, pa.large_string())), near)


def sets_with(similarity: float, size: int, seed: int) -> tuple[str, str, float]:
    """Two texts of distinct words whose sets have a Jaccard similarity as near as can be."""
    common = round(2 * size * similarity / (1 + similarity))
    words = [f"w{seed}x{number}" for number in range(2 * size - common)]
    return " ".join(words[:size]), " ".join(words[size - common :]), common / len(words)


@pytest.mark.parametrize("similarity", [0.3, 0.8, 0.95])
def test_estimate_has_no_bias_and_the_expected_error(similarity: float) -> None:
    pairs = [sets_with(similarity, 200, seed) for seed in range(300)]
    found, present = sign([text for first, second, _ in pairs for text in (first, second)])
    assert present.all()
    exact = pairs[0][2]
    estimates = (found[::2] == found[1::2]).mean(axis=1)
    bound = (exact * (1 - exact) / 128) ** 0.5
    assert abs(estimates.mean() - exact) < 4 * bound / 300**0.5
    assert estimates.std() < 1.15 * bound


def test_signature_looks_at_the_set_alone() -> None:
    found, _ = sign(["a b c", "c b a", "a a b b c c", "a b d"])
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert not (found[0] == found[3]).all()


def test_texts_without_words_have_no_signature() -> None:
    _, present = sign(["...", "a", "", " \n", "…"])
    assert present.tolist() == [False, True, False, False, False]
    found, present = sign([])
    assert found.shape == (0, 128)
    assert len(present) == 0


def test_signature_does_not_depend_on_what_is_signed_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [f"word{n} " * (n % 7) + f"end{n}" for n in range(50)]
    whole, _ = sign(texts)
    monkeypatch.setattr(minhash_module, "_TEXT_BYTES", 40)
    assert len(list(minhash_module._parts(Texts.of(pa.array(texts, pa.large_string()))))) > 10
    assert np.array_equal(sign(texts)[0], whole)
    alone = np.concatenate([sign([text])[0] for text in texts])
    assert np.array_equal(alone, whole)


def test_signatures_stay_what_they_are() -> None:
    """Signatures on disk are compared with new ones: another library version must show."""
    found, _ = sign(["the quick brown fox", "das schnelle Füchslein", "春眠不觉晓"], num_hashes=16)
    assert found[:, :4].tolist() == EXPECTED
    assert minhash_module.algorithm() == "rensa R-MinHash 2"


EXPECTED = [
    [3473425047, 3601830404, 3263028265, 1030811347],
    [3408077329, 3282602883, 3652578194, 3251182230],
    [421189265, 3300175348, 3225136129, 667733444],
]


@pytest.mark.parametrize("bands", [Bands(14, 9), Bands(16, 8), Bands(1, 128)])
def test_keys_are_equal_where_the_whole_band_is(bands: Bands) -> None:
    first, _ = sign(["a b c"])
    second = first.copy()
    second[0, 3] += 1  # one number of the first band
    third = np.roll(first, bands.rows, axis=1)  # the same bands, but for others of their number
    same = (band_keys(first, bands) == band_keys(second, bands))[0]
    assert same.tolist() == [False] + [True] * (bands.count - 1)
    assert not (band_keys(first, bands) == band_keys(third, bands)).any() or bands.count == 1
    assert len(np.unique(band_keys(first, bands))) == bands.count


def test_pairs_meet_as_often_as_the_curve_says() -> None:
    bands = NearConfig().bands
    assert bands == Bands(14, 9)
    for similarity in (0.6, 0.8, 0.9):
        pairs = [sets_with(similarity, 150, seed) for seed in range(500)]
        found, _ = sign([text for first, second, _ in pairs for text in (first, second)])
        keys = band_keys(found, bands)
        met = (keys[::2] == keys[1::2]).any(axis=1).mean()
        exact = pairs[0][2]
        curve = 1 - (1 - exact**bands.rows) ** bands.count
        assert abs(met - curve) < 4 * (curve * (1 - curve) / 500) ** 0.5 + 0.02


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("num_hashes", [16, 64, 128, 256])
def test_best_bands_miss_little_beyond_the_threshold(threshold: float, num_hashes: int) -> None:
    bands = best_bands(threshold, num_hashes)
    assert bands.count * bands.rows <= num_hashes

    def meets(similarity: float) -> float:
        return 1 - (1 - similarity**bands.rows) ** bands.count

    assert meets(threshold) > 0.6
    assert meets((1 + threshold) / 2) > 0.75
