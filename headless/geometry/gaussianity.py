"""How far a set of numbers is from a Gaussian. With a million numbers every test rejects: these
are sizes of effects, not probabilities.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# P(|z| > 4) of a Gaussian
TAIL_AT_4 = math.erfc(4 / math.sqrt(2))
_NU = (0.5, 1e4)  # degrees of freedom beyond which Student's t is as good as a Gaussian


@dataclass(frozen=True)
class Moments:
    """Of all values together; a Gaussian has skew 0, excess kurtosis 0 and tail ratio 1.

    Args:
        count: of values.
        mean: of them.
        std: divided by n.
        skew: third standardised moment.
        excess_kurtosis: fourth one, less 3.
        tail_ratio: how many times as many values lie more than 4 standard deviations out.
        largest: absolute value, in standard deviations.
    """

    count: int
    mean: float
    std: float
    skew: float
    excess_kurtosis: float
    tail_ratio: float
    largest: float


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

    Args:
        x: any shape; sorted, so a sample of a very large one will do. By chance alone about
            0.9/√n (the distribution's parameters come from the values themselves).
    """
    z = x.double().flatten().sort().values
    z = (z - z.mean()) / z.std(correction=0)
    below = torch.special.ndtr(z)
    place = torch.arange(len(z), dtype=torch.float64, device=z.device)
    steps = torch.maximum((place + 1) / len(z) - below, below - place / len(z))
    return float(steps.max())


@dataclass(frozen=True)
class Fit:
    """A distribution fitted by maximum likelihood.

    Args:
        location: its centre.
        scale: Gaussian: standard deviation; Laplace: mean absolute deviation; logistic and
            Student-t: the usual scale.
        nu: degrees of freedom of Student-t, else infinite.
        log_likelihood: mean over the values, in nats.
        parameters: how many were fitted.
    """

    location: float
    scale: float
    nu: float
    log_likelihood: float
    parameters: int


def log_density(name: str, z: Tensor, nu: Tensor | float = math.inf) -> Tensor:
    """Log density of "gaussian", "logistic", "laplace" or "student_t", at location 0 and scale 1.

    Raises:
        ValueError: another name.
    """
    if name == "gaussian":
        return -z.square() / 2 - math.log(2 * math.pi) / 2
    if name == "logistic":
        return -z.abs() - 2 * torch.nn.functional.softplus(-z.abs())
    if name == "laplace":
        return -z.abs() - math.log(2)
    if name == "student_t":
        nu = torch.as_tensor(nu, dtype=z.dtype, device=z.device)
        constant = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - (nu * math.pi).log() / 2
        return constant - (nu + 1) / 2 * (z.square() / nu).log1p()
    raise ValueError(f"no density is called {name}")


def fit_distributions(x: Tensor) -> dict[str, Fit]:
    """Gaussian, logistic, Laplace and Student-t, each by maximum likelihood.

    Args:
        x: any shape; for very large ones a sample of some 10,000 values will do.

    Returns:
        By name. Where the values do not vary, all are NaN.
    """
    x = x.detach().double().flatten()
    centre, spread = x.mean(), x.std(correction=0)
    if not spread > 0:
        return {
            name: Fit(math.nan, math.nan, math.nan, math.nan, 0)
            for name in _STARTS | {"laplace": ()}
        }
    z = (x - centre) / spread
    found = {"gaussian": ((0.0, 1.0, math.inf), 2)}
    median = z.median()
    found["laplace"] = ((float(median), float((z - median).abs().mean()), math.inf), 2)
    for name in ("logistic", "student_t"):
        found[name] = (_maximise(name, z), len(_STARTS[name]))
    fits = {}
    for name, ((location, scale, nu), parameters) in found.items():
        density = log_density(name, (z - location) / scale, nu).mean() - math.log(scale)
        fits[name] = Fit(
            location=float(centre + location * spread),
            scale=float(scale * spread),
            nu=nu,
            log_likelihood=float(density - spread.log()),
            parameters=parameters,
        )
    return fits


def best_fit(fits: dict[str, Fit], count: int) -> str:
    """The name of the likeliest, with Schwarz's price on each parameter (BIC)."""
    price = math.log(max(count, 1)) / 2 / max(count, 1)
    return max(fits, key=lambda name: fits[name].log_likelihood - price * fits[name].parameters)


_STARTS: dict[str, tuple[float, ...]] = {
    "logistic": (0.0, math.log(math.sqrt(3) / math.pi)),
    "student_t": (0.0, math.log(0.9), math.log(8.0)),
}


def _maximise(name: str, z: Tensor) -> tuple[float, float, float]:
    """Location, scale and degrees of freedom of greatest likelihood for standardised values."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.clone()
        theta = torch.tensor(
            _STARTS[name], dtype=torch.float64, device=z.device, requires_grad=True
        )
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            nu = theta[2].exp().clamp(*_NU) if len(theta) > 2 else math.inf
            value = theta[1] - log_density(name, (z - theta[0]) / theta[1].exp(), nu).mean()
            value.backward()
            return value

        optimizer.step(loss)
    location, log_scale, *rest = theta.detach().tolist()
    nu = min(max(math.exp(rest[0]), _NU[0]), _NU[1]) if rest else math.inf
    return location, math.exp(log_scale), nu
