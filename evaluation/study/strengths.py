"""How strong each method is: Davidson's model of comparisons with ties, and shares of choices.

Davidson (1970), "On extending the Bradley-Terry model to accommodate ties in paired comparison experiments": with
strengths theta, for methods i and j

    P(i preferred) : P(no difference) : P(j preferred)  =  e^theta_i : nu e^((theta_i + theta_j) / 2) : e^theta_j

Without ties it is the model of Bradley and Terry. Strengths are centred: they sum to 0.
"""

import numpy as np
from jaxtyping import Float

RIDGE = (
    0.02  # on theta and log nu, in place of infinity where a method lost every time: less than one judgement's weight
)
LARGEST_STEP = 2.0  # of Newton's method
TOLERANCE = 1e-8
ITERATIONS = 100


def davidson(
    counts: Float[np.ndarray, "*studies duels 3"], duels: list[tuple[int, int]], methods: int
) -> tuple[Float[np.ndarray, "*studies methods"], Float[np.ndarray, "*studies"]]:
    """theta and log nu of maximum likelihood, of many studies at once.

    `counts[..., d, :]` says how often duel d = (i, j) was decided for i, for neither, for j. Newton's method on the
    log-likelihood, which is concave, less RIDGE / 2 times the squared parameters.
    """
    x = features(duels, methods)
    beta = np.zeros((*counts.shape[:-2], methods + 1))
    total = counts.sum(-1)
    for _ in range(ITERATIONS):
        p = np.exp(log_probabilities(beta, x))
        mean = np.einsum("...do,dok->...dk", p, x)
        gradient = np.einsum("...do,dok->...k", counts, x) - np.einsum("...d,...dk->...k", total, mean) - RIDGE * beta
        second = np.einsum("...do,dok,dol->...dkl", p, x, x, optimize=True) - mean[..., :, None] * mean[..., None, :]
        curvature = np.einsum("...d,...dkl->...kl", total, second) + RIDGE * np.eye(methods + 1)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        beta += np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        if np.abs(step).max() < TOLERANCE:
            break
    theta = beta[..., :-1]
    return theta - theta.mean(-1, keepdims=True), beta[..., -1]


def features(duels: list[tuple[int, int]], methods: int) -> Float[np.ndarray, "duels 3 parameters"]:
    """What the logarithm of each outcome's weight is of (theta, log nu)."""
    x = np.zeros((len(duels), 3, methods + 1))
    for duel, (i, j) in enumerate(duels):
        x[duel, 0, i] = x[duel, 2, j] = 1
        x[duel, 1, [i, j]] = 0.5
        x[duel, 1, methods] = 1
    return x


def log_probabilities(
    beta: Float[np.ndarray, "*studies parameters"], x: Float[np.ndarray, "duels 3 parameters"]
) -> Float[np.ndarray, "*studies duels 3"]:
    """Of each outcome of each duel."""
    weight = np.einsum("dok,...k->...do", x, beta)
    return weight - np.logaddexp.reduce(weight, axis=-1, keepdims=True)


def chosen_best(counts: Float[np.ndarray, "*studies methods"]) -> Float[np.ndarray, "*studies methods"]:
    """Strengths whose shares are those of the choices, half a choice added to each so that none is infinite."""
    theta = np.log(counts + 0.5)
    return theta - theta.mean(-1, keepdims=True)


def shares(theta: Float[np.ndarray, "*studies methods"]) -> Float[np.ndarray, "*studies methods"]:
    """Luce's choice: how often each would be chosen best of all, by its strength. They sum to 1."""
    weight = np.exp(theta - theta.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)
