#!/usr/bin/env python3
"""The tools around the pocket model's text: the n-gram baseline beside its definition, the overlap of windows, and the
cleaning of texts. Prints `CASE pass|fail|skip NAME: reason`."""
import collections
import pathlib
import random
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "tools"), str(TOP / "examples/pocket")]
sys.dont_write_bytecode = True
try:
    import numpy
except ImportError:
    print("CASE skip text tools: numpy is not installed")
    sys.exit(77)
import gather_text
import kneser_ney
import window_overlap


def defined(tokens, vocab, order, discounts):
    """p(word | context) by the definition, with sets; the discounts are those under test."""
    grams = [collections.Counter(tuple(tokens[i:i + k]) for i in range(len(tokens) - k + 1)) for k in range(1, order + 1)]
    adjusted = [collections.Counter() for _ in range(order)]
    adjusted[-1] = grams[-1]
    for k in range(order - 1):
        for gram in grams[k + 1]:
            adjusted[k][gram[1:]] += 1

    def p(word, context):
        if len(context) == 0:
            lower = 1 / vocab
        else:
            lower = p(word, context[1:])
        counts = {g[-1]: c for g, c in adjusted[len(context)].items() if g[:-1] == context}
        total = sum(counts.values())
        if total == 0:
            return lower
        d = discounts[len(context)]
        freed = sum(d[min(c, 3)] for c in counts.values())
        c = counts.get(word, 0)
        return (max(c - d[min(c, 3)], 0) if c else 0) / total + freed / total * lower

    return p


def check_kneser_ney_equals_its_definition():
    random.seed(1)
    text = [random.choice([0, 0, 1, 2, 3]) if random.random() < .7 else i % 5 for i in range(300)]
    test = [random.randrange(6) for _ in range(60)]  # with a token that was never seen
    for order in (1, 2, 3, 5):
        model = kneser_ney.KneserNey(numpy.array(text), 6, order)
        p = defined(text, 6, order, model.discounts)
        got = model.probabilities(numpy.array(test))
        for i, word in enumerate(test):
            want = p(word, tuple(test[max(0, i - order + 1):i]))
            if abs(got[i] - want) > 1e-12:
                return f"order {order}, place {i}: {got[i]} and not {want}"


def check_kneser_ney_sums_to_one():
    random.seed(2)
    text = numpy.array([random.randrange(4) * random.randrange(3) for _ in range(400)])
    model = kneser_ney.KneserNey(text, 7, 4)
    for context in ([], [0], [1, 2], [0, 0, 0], [6, 0, 2]):
        total = sum(model.probabilities(numpy.array(context + [word]))[-1] for word in range(7))
        if abs(total - 1) > 1e-12:
            return f"after {context}: {total}"


def check_discounts_by_hand():
    # Four grams once, two twice, one three times, one four times: Y = 4 / (4 + 2 * 2) = 1/2, D1 = 1 - 2 * 1/2 * 2/4 = 1/2,
    # D2 = 2 - 3 * 1/2 * 1/2 = 5/4, D3 = 3 - 4 * 1/2 * 1/1 = 1.
    got = kneser_ney.KneserNey.estimate(numpy.array([1, 1, 1, 1, 2, 2, 3, 4]))
    if list(got) != [0, .5, 1.25, 1]:
        return str(got)


def check_windows_are_found_where_they_stand():
    random.seed(3)
    train = [random.randrange(50) for _ in range(5000)]
    copied, new = train[100:130], [random.randrange(50) for _ in range(30)]
    if window_overlap.overlap(train, [copied], 10) != (21, 21):
        return "a copy must be found whole"
    if window_overlap.overlap(train, [new], 10) != (0, 21):
        return "new text must not be found"
    if window_overlap.overlap(train, [copied[:15] + new[:15], [1, 2]], 10) != (6, 21):
        return "half a copy"


def check_texts_are_cleaned():
    got = gather_text.clean("\u201cIt\u2019s\u201d\u2014so\u2026  \r\n\r\n\r\n\r\nNext\u00b6\n")
    if got != "\"It's\"--so...\n\nNext":
        return repr(got)
    seen = set()
    first = gather_text.without_repeats("short\n\n" + "long enough to count as seen " * 4, seen)
    second = gather_text.without_repeats("short\n\n" + "Long  enough to count as seen " * 4, seen)
    if second != "short" or "long enough" not in first:
        return repr((first, second))
    long_text = "\n\n".join("word " * 100 for _ in range(200))
    cut = list(gather_text.pieces(long_text))
    if "\n\n".join(cut) != long_text or max(map(len, cut)) > gather_text.DOCUMENT + 600:
        return "pieces must join to the text"


def main():
    failed = 0
    for name, check in sorted(globals().items()):
        if name.startswith("check_"):
            problem = check()
            failed += bool(problem)
            print(f"CASE {'fail' if problem else 'pass'} {name[6:].replace('_', ' ')}{': ' + problem if problem else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
