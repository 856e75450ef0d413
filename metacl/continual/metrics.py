"""Numbers of an R matrix. R[k][i] is the accuracy on experience i after learning experience k, of T; b[i] at the start.

Where papers use one name for several things each has a name here. For a language model R holds nats per token, less is
better, and every sign is turned so that more is better again: an "accuracy" is then minus the nats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Matrix = Sequence[Sequence[float | None]]


def metrics(
    rows: Matrix, baseline: Sequence[float], random: Sequence[float | None], higher_is_better: bool = True
) -> dict[str, float | None]:
    """All numbers that the experiences so far define.

    Parameters
    ----------
    rows : (T, T)
        None stands for not measured, and may stand above the diagonal only.
    baseline : (T,)
        b, of the run's own start: what it answers without learning anything.
    random : (T,)
        b̄, at random initialization. None for an experience none of whose classes may be answered before it is learned
        (scenario "seen", classes one after another): R above the diagonal is 0 there whatever was learned.

    Returns
    -------
    dict
        average_accuracy : mean_i R[T-1][i] (ACC; Lopez-Paz & Ranzato 2017, "GEM", eq. 2).
        average_incremental_accuracy : mean_k mean_{i ≤ k} R[k][i] (Rebuffi et al. 2017, "iCaRL", sec. 4.1).
        learning_accuracy : mean_i R[i][i] (Riemer et al. 2019, "MER", sec. 5).
        and from two experiences on
        backward_transfer : mean_{i < T-1} R[T-1][i] − R[i][i] (GEM, eq. 3).
        forward_transfer : mean_{i > 0} R[i-1][i] − b̄[i] (GEM, eq. 4). What a pretrained or meta-learned start knows
        counts.
        forward_transfer_from_start : mean_{i > 0} R[i-1][i] − b[i]: what the experiences before brought. From a random
        start the two are one.
        Both are None where an entry was not measured or b̄ is None.
        forgetting_chaudhry : mean_{i < T-1} max_{i ≤ l < T-1} R[l][i] − R[T-1][i] (Chaudhry et al. 2018, "Riemannian
        Walk", eq. 3): below 0 where the last experience helped.
        forgetting_mammoth : the same with l ≤ T-1, so never below 0 (as the library of Buzzega et al. 2020 has it).
        forgetting_avalanche : mean_{i < T-1} R[i][i] − R[T-1][i] (as the library of Lomonaco et al. 2021): minus the
        backward transfer.
    """
    count = len(rows)
    r = np.array([[np.nan if value is None else value for value in row[:count]] for row in rows], dtype=np.float64)
    b = np.asarray(baseline[:count], dtype=np.float64)
    at_random = np.array([np.nan if value is None else value for value in random[:count]], dtype=np.float64)
    if not higher_is_better:
        r, b, at_random = -r, -b, -at_random
    own = np.diag(r)
    found = {
        "average_accuracy": r[-1].mean(),
        "average_incremental_accuracy": np.mean([r[k, : k + 1].mean() for k in range(count)]),
        "learning_accuracy": own.mean(),
    }
    if count > 1:
        last = r[-1, :-1]
        found["backward_transfer"] = (last - own[:-1]).mean()
        found["forward_transfer"] = (np.diag(r, 1) - at_random[1:]).mean()
        found["forward_transfer_from_start"] = (np.diag(r, 1) - b[1:] + 0 * at_random[1:]).mean()
        found["forgetting_chaudhry"] = np.mean([r[i:-1, i].max() - last[i] for i in range(count - 1)])
        found["forgetting_mammoth"] = np.mean([r[i:, i].max() - last[i] for i in range(count - 1)])
        found["forgetting_avalanche"] = (own[:-1] - last).mean()
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}
