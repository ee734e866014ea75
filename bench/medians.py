"""What pairs of measurements say: the benchmarks' only statistics."""
import statistics


def median_interval(values):
    """Median and its 95 % interval from order statistics (any distribution; normal approximation of ranks)."""
    values, n = sorted(values), len(values)
    reach = int(0.98 * n ** 0.5) + 1
    return statistics.median(values), values[max(0, n // 2 - reach)], values[min(n - 1, n // 2 + reach)]
