"""The one-sided Wilcoxon signed-rank test, for paired scores of a few to a thousand images, by SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 12  # differences that agree so far are tied: scores carry rounding errors of about 1e-16
MAX_TIED = 16  # differences; 2^16 arrangements of signs are tried one by one, in a second


def signed_rank_test(differences: NDArray[np.float64]) -> float:
    """Return the probability of so large a sum of positive ranks if signs were tossed by a fair coin.

    The test of Naylor et al. (TMI 2018), section VI-E and Fig. 5. Differences of zero are dropped, as Wilcoxon had it;
    tied differences share the mean of their ranks. The value is exact without ties, and with ties among at most
    `MAX_TIED` differences, where every arrangement of signs is tried; with ties among more, the normal approximation
    with a correction for ties is used.

    Parameters
    ----------
    differences : (n,) float64
        Of each pair; positive where the method under test is the better one.

    Returns
    -------
    float
        The one-sided p-value: small where the differences lie above zero; 1.0 where all are zero.

    Examples
    --------
    >>> import numpy as np
    >>> signed_rank_test(np.array([0.1, 0.3, 0.2, 0.4]))  # the one arrangement of 2^4
    0.0625
    """
    from scipy.stats import permutation_test, rankdata, wilcoxon

    rounded = np.round(np.asarray(differences, np.float64), _DECIMALS)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return 1.0
    sizes = np.abs(rounded)
    tied = len(np.unique(sizes)) < len(sizes)
    if tied and len(sizes) <= MAX_TIED:
        ranks = np.sign(rounded) * rankdata(sizes)
        found = permutation_test(
            (ranks,), np.sum, permutation_type="samples", vectorized=True, n_resamples=np.inf, alternative="greater"
        )
    else:
        found = wilcoxon(rounded, alternative="greater", method="asymptotic" if tied else "exact")
    return float(found.pvalue)
