"""Small plots as SVG, in the colours of bench/: every seed is a dot, the mean a mark with one standard deviation to either side."""
import html
import math

INK, FAINT, MAIN, SECOND = "#33415c", "#d0d7e2", "#1f6feb", "#8250df"
STYLE = 'font-family="sans-serif" font-size="11"'


def ticks(low, high, parts=5):
    """1, 2 or 5 times a power of ten."""
    raw = max(high - low, 1e-12) / parts
    power = 10 ** math.floor(math.log10(raw))
    step = power * next((digit for digit in (1, 2, 5) if raw / power <= digit), 10)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def widened(values, share=0.08):
    low, high = min(values), max(values)
    margin = (high - low) * share or abs(high) * 0.01 or 1
    return low - margin, high + margin


def text(x, y, words, anchor="start", colour=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(str(words))}</text>'


def line(x1, y1, x2, y2, colour=FAINT, width=1.0, dash=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'


def dot(x, y, colour=MAIN, radius=2.5, opacity=0.55):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="{opacity}"/>'


def picture(width, height, parts):
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" {STYLE}>\n' + "\n".join(parts) + "\n</svg>\n"


def number(value):
    return f"{value:.6g}"


def dots(variants, label):
    """One line of dots a variant."""
    width, left, right, top, row = 720, 190, 20, 12, 26
    height = top + row * len(variants) + 40
    values = [value for variant in variants for value in variant["values"]]
    low, high = widened(values)
    at = lambda value: left + (width - left - right) * (value - low) / (high - low)
    bottom, parts = top + row * len(variants), []
    for tick in ticks(low, high):
        parts += [line(at(tick), top, at(tick), bottom), text(at(tick), bottom + 15, number(tick), "middle")]
    parts.append(text((left + width - right) / 2, bottom + 32, label, "middle"))
    for i, variant in enumerate(variants):
        y, sd = top + row * (i + 0.5), variant["sd"] or 0
        parts += [text(left - 10, y + 4, variant["name"], "end"), line(at(variant["mean"] - sd), y, at(variant["mean"] + sd), y, MAIN, 2),
                  line(at(variant["mean"]), y - 7, at(variant["mean"]), y + 7, MAIN, 2)]
        parts += [dot(at(value), y, SECOND) for value in variant["values"]]
    return picture(width, height, parts)


def frame(xs, ys, xlabel, ylabel, log=False):
    """Axes for points: (svg parts, x -> pixel, y -> pixel)."""
    width, height, left, right, top, bottom = 720, 300, 62, 20, 14, 46
    scale = math.log if log else float
    (x0, x1), (y0, y1) = widened([scale(x) for x in xs], 0.04), widened(ys)
    px = lambda x: left + (width - left - right) * (scale(x) - x0) / (x1 - x0)
    py = lambda y: top + (height - top - bottom) * (y1 - y) / (y1 - y0)
    parts = []
    for tick in ticks(y0, y1):
        parts += [line(left, py(tick), width - right, py(tick)), text(left - 6, py(tick) + 4, number(tick), "end")]
    parts += [text((left + width - right) / 2, height - 8, xlabel, "middle"), f'<g transform="rotate(-90 14 {height / 2})">{text(14, height / 2, ylabel, "middle")}</g>']
    return parts, px, py, (width, height, left, right, bottom)


def trend(xs, variants, xlabel, ylabel, level=None):
    """Means with deviations along an axis; `level`: a variant that has no place on it, drawn across."""
    values = [value for variant in variants + ([level] if level else []) for value in variant["values"]]
    parts, px, py, (width, height, left, right, bottom) = frame(xs, values, xlabel, ylabel)
    parts += [text(px(x), height - bottom + 16, number(x), "middle") for x in xs]
    if level:
        parts += [line(left, py(level["mean"]), width - right, py(level["mean"]), INK, 1.2, "5 4"), text(width - right, py(level["mean"]) - 5, level["name"], "end")]
    points = " ".join(f"{px(x):.1f},{py(variant['mean']):.1f}" for x, variant in zip(xs, variants))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{MAIN}" stroke-width="1.6"/>')
    for x, variant in zip(xs, variants):
        sd = variant["sd"] or 0
        parts += [line(px(x), py(variant["mean"] - sd), px(x), py(variant["mean"] + sd), MAIN, 2), dot(px(x), py(variant["mean"]), MAIN, 3.5, 1)]
        parts += [dot(px(x), py(value), SECOND) for value in variant["values"]]
    return picture(width, height, parts)


def curve(points, marks, xlabel, ylabel):
    """A falling curve [[x, y], ...] over a logarithmic axis, and marks beside it."""
    xs, ys = [x for x, _ in points + marks], [y for _, y in points + marks]
    parts, px, py, (width, height, _, _, bottom) = frame(xs, ys, xlabel, ylabel, log=True)
    for power in range(math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs))) + 1):
        for digit in (1, 2, 5):
            x = digit * 10 ** power
            if min(xs) <= x <= max(xs):
                parts += [line(px(x), height - bottom, px(x), height - bottom + 4, INK), text(px(x), height - bottom + 16, f"{x:,}", "middle")]
    drawn = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
    parts.append(f'<polyline points="{drawn}" fill="none" stroke="{MAIN}" stroke-width="1.6"/>')
    parts += [dot(px(x), py(y), MAIN, 3, 1) for x, y in points]
    parts += [dot(px(x), py(y), SECOND, 5, 1) for x, y in marks]
    return picture(width, height, parts)
