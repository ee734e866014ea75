"""Means, deviations and paired differences of few runs.

Two variants that were trained from the same seeds share first weights (where shapes agree) and the order of the data, so
the differences seed by seed vary less than the values do. Their mean has a 95 % interval by Student's t with n - 1 degrees
of freedom. With three seeds that interval is 2.5 standard deviations of a difference to either side: only clear effects
are outside of it. Intervals of several comparisons are not corrected for their number.
"""
import math
import statistics

# Student's t, 97.5 % quantile, by degrees of freedom 1 ... 30; beyond, the normal's is used with a small correction.
T975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


def t975(degrees):
    return T975[degrees - 1] if degrees <= len(T975) else 1.96 + 2.5 / degrees


def spread(values):
    """Mean and sample standard deviation (None for fewer than two values)."""
    return statistics.fmean(values), (statistics.stdev(values) if len(values) > 1 else None)


def paired(values, reference):
    """The difference values - reference, seed by seed: {"difference", "low", "high", "n", "reading"}; low and high are None for one pair."""
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    mean, sd = spread(differences)
    out = {"difference": mean, "low": None, "high": None, "n": len(differences)}
    if sd is None:
        return out | {"reading": "one pair: no interval"}
    half = t975(len(differences) - 1) * sd / math.sqrt(len(differences))
    out |= {"low": mean - half, "high": mean + half}
    if out["low"] > 0:
        return out | {"reading": "higher"}
    if out["high"] < 0:
        return out | {"reading": "lower"}
    return out | {"reading": "null" if len(differences) > 2 else "null (two pairs: hardly anything can be seen)"}


def slope(points):
    """Least-squares slope of y over x."""
    mx, my = statistics.fmean(x for x, _ in points), statistics.fmean(y for _, y in points)
    return sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)


def crossing(curve, level):
    """Tokens at which a falling curve [[tokens, loss], ...] first reaches `level`, straight between its points in log tokens: (tokens, bound).
    bound is "" where it is a crossing, ">" if the curve never gets there (tokens: its end), "<" if its first point is there already."""
    before = None
    for tokens, loss in curve:
        if loss <= level:
            if before is None:
                return tokens, "<"
            share = (before[1] - level) / (before[1] - loss)
            return math.exp(math.log(before[0]) + share * (math.log(tokens) - math.log(before[0]))), ""
        before = tokens, loss
    return curve[-1][0], ">"


def compared(variants, *pairs):
    """Paired differences of losses, by the variants' names."""
    values = {variant["name"]: variant["values"] for variant in variants}
    return [{"a": a, "b": b} | paired(values[a], values[b]) for a, b in pairs]


def against(variants, reference):
    return compared(variants, *((variant["name"], reference) for variant in variants if variant["name"] != reference))
