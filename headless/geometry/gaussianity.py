"""How far a set of numbers is from a Gaussian. With a million numbers every test rejects: these
are sizes of effects, not probabilities.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

TAIL_AT_4 = math.erfc(4 / math.sqrt(2))  # P(|z| > 4) of a Gaussian
NU = (0.5, 1e4)  # degrees of freedom beyond which Student's t is as good as a Gaussian
# Where the search for the likeliest parameters of standardised values begins: location, log scale.
LOGISTIC = (0.0, math.log(math.sqrt(3) / math.pi))
STUDENT_T = (0.0, math.log(0.9), math.log(8.0))  # and log degrees of freedom


@dataclass(frozen=True)
class Moments:
    """Of all values together; a Gaussian has skew 0, excess kurtosis 0 and tail ratio 1."""

    count: int
    mean: float
    std: float  #: divided by n
    skew: float
    excess_kurtosis: float
    tail_ratio: float  #: how many times as many values lie more than 4 standard deviations out
    largest: float  #: absolute value, in standard deviations from the mean


def moments(x: Tensor) -> Moments:
    """Moments of a tensor of any shape, in float64; NaN where the values do not vary."""
    x = x.double().flatten()
    mean = x.mean()
    centred = x - mean
    std = centred.square().mean().sqrt()
    if not std > 0:
        return Moments(len(x), float(mean), float(std), *[math.nan] * 4)
    z = centred / std
    squares = z.square()
    return Moments(
        count=len(x),
        mean=float(mean),
        std=float(std),
        skew=float((squares * z).mean()),
        excess_kurtosis=float(squares.square().mean()) - 3,
        tail_ratio=float((squares > 16).double().mean()) / TAIL_AT_4,
        largest=float(squares.max().sqrt()),
    )


def gaussian_distance(x: Tensor) -> float:
    """Kolmogorov and Smirnov's distance to the Gaussian of the same mean and variance.

    Of any shape; sorted, so a sample of a very large one will do. By chance alone about 0.9/√n
    (the distribution's parameters come from the values themselves). NaN where nothing varies.
    """
    from scipy import stats

    x = x.double().flatten()
    z = ((x - x.mean()) / x.std(correction=0)).cpu().numpy()
    return float(stats.kstest(z, "norm", method="asymp").statistic)


@dataclass(frozen=True)
class Fit:
    """A distribution fitted by maximum likelihood."""

    law: Any  #: of `scipy.stats`, with the parameters below; None where the values do not vary
    location: float = math.nan
    #: Gaussian: standard deviation; Laplace: mean absolute deviation; others: the usual scale
    scale: float = math.nan
    nu: float = math.inf  #: degrees of freedom of Student-t, else infinite
    log_likelihood: float = math.nan  #: mean over the values, in nats


def fit_distributions(x: Tensor) -> dict[str, Fit]:
    """Gaussian, logistic, Laplace and Student-t by name, each by maximum likelihood.

    Of any shape; a sample of some 10,000 values will do. NaN where the values do not vary.
    """
    from scipy import stats

    values = x.detach().double().flatten().cpu().numpy()
    centre, spread = values.mean(), values.std()
    if not spread > 0:
        return dict.fromkeys(("gaussian", "logistic", "laplace", "student_t"), Fit(None))
    z = (values - centre) / spread
    fitted = {
        "gaussian": (stats.norm, (0.0, 1.0)),
        "logistic": (stats.logistic, _likeliest(z, LOGISTIC)),
        "laplace": (stats.laplace, stats.laplace.fit(z)),
        "student_t": (stats.t, _likeliest(z, STUDENT_T)),
    }
    fits = {}
    for name, (family, (*nu, location, scale)) in fitted.items():
        place, size = float(centre + location * spread), float(scale * spread)
        law = family(*nu, loc=place, scale=size)
        likelihood = float(law.logpdf(values).mean())
        fits[name] = Fit(law, place, size, nu[0] if nu else math.inf, likelihood)
    return fits


def best_fit(fits: dict[str, Fit], count: int) -> str:
    """The name of the likeliest, with Schwarz's price on each parameter (BIC)."""
    price = math.log(max(count, 1)) / 2 / max(count, 1)
    parameters = {name: 2 + math.isfinite(fit.nu) for name, fit in fits.items()}
    return max(fits, key=lambda name: fits[name].log_likelihood - price * parameters[name])


def _likeliest(values: np.ndarray, start: tuple[float, ...]) -> tuple[float, ...]:
    """SciPy's parameters: (degrees of freedom,) location, scale; ten times faster than it searches,
    and nearer for the logistic distribution."""
    with torch.inference_mode(False), torch.enable_grad():
        z = torch.from_numpy(values)
        theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            y = (z - theta[0]) / theta[1].exp()
            if len(theta) > 2:
                nu = theta[2].exp().clamp(*NU)
                density = torch.distributions.StudentT(nu, validate_args=False).log_prob(y)
            else:
                density = -y.abs() - 2 * torch.nn.functional.softplus(-y.abs())
            value = theta[1] - density.mean()
            value.backward()
            return value

        optimizer.step(loss)
    location, log_scale, *log_nu = theta.detach().tolist()
    return *(min(max(math.exp(v), NU[0]), NU[1]) for v in log_nu), location, math.exp(log_scale)
