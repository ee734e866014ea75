"""An independent Engram hash in NumPy, and the golden file that the C++ one is tested against.

  python3 tools/engram_reference.py tests/data/engram/hash_golden.json

It shares no idea with src/memory/engram_hash.cpp beyond the definition: multipliers come from NumPy's own generator,
primality from trial division by a sieve, look-back from list slicing, and arithmetic is Python's unbounded integers.
The row ids in the file are numbers of the whole table. 64-bit values are strings, as JSON numbers are doubles to many.
"""
import json
import random
import sys

import numpy as np

MASK = (1 << 64) - 1


def sieve(limit):
    flags = np.ones(limit + 1, bool)
    flags[:2] = False
    for i in range(2, int(limit**0.5) + 1):
        if flags[i]:
            flags[i * i :: i] = False
    return [int(p) for p in np.flatnonzero(flags)]


SMALL_PRIMES = sieve(40_000)  # enough for numbers below 1.6e9


def is_prime(n):
    for p in SMALL_PRIMES:
        if p * p > n:
            return n > 1
        if n % p == 0:
            return n == p
    raise ValueError(f"{n} is beyond the sieve")


def splitmix64(state):
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def multipliers(config, layer_id):
    half = max(1, (2**63 - 1) // config["compressed_vocab"] // 2)
    seed = config.get("seed", 0) + 10007 * layer_id
    n = config["max_ngram"]
    if config.get("hash", "pcg64") == "pcg64":
        draws = np.random.default_rng(seed).integers(0, half, n, dtype=np.int64)
    else:
        draws = [splitmix64((seed + 0x9E3779B97F4A7C15 * (i + 1)) & MASK) % half for i in range(n)]
    return [2 * int(r) + 1 for r in draws]


def all_primes(config):
    """[layer][order * heads + head]"""
    used, out = set(), []
    for _ in config["layer_ids"]:
        layer = []
        for base in config["base_rows"]:
            c = base - 1
            for _ in range(config["heads"]):
                c += 1
                while c in used or not is_prime(c):
                    c += 1
                used.add(c)
                layer.append(c)
        out.append(layer)
    return out


def window(config, ids, t):
    """The classes that position t sees, newest first."""
    rule, border = config.get("boundary", "none"), config.get("boundary_id", -1)
    n = config["max_ngram"]
    back = list(reversed(ids[: t + 1]))[:n]
    filler = border if rule == "eos" else config.get("pad_id", 0)
    for k, token in enumerate(back):
        if token < 0 or (rule == "eos" and k > 0 and token == border):
            back = back[:k]
            break
        if rule == "reset" and token == border:
            back = back[: k + 1]
            break
    return back + [filler] * (n - len(back))


def rows(config, ids):
    """[layer][position][order * heads + head], numbers in the whole table"""
    multiple = config.get("rows_multiple", 1)
    primes, out, first = all_primes(config), [], 0
    for l, layer_id in enumerate(config["layer_ids"]):
        m = multipliers(config, layer_id)
        offsets = [first + sum(primes[l][:i]) for i in range(len(primes[l]))]
        layer = []
        for t in range(len(ids)):
            seen = window(config, ids, t)
            row = []
            for order in range(2, config["max_ngram"] + 1):
                mix = 0
                for token, factor in zip(seen[:order], m):
                    mix ^= token * factor
                for head in range(config["heads"]):
                    i = (order - 2) * config["heads"] + head
                    row.append(offsets[i] + mix % primes[l][i])
            layer.append(row)
        out.append(layer)
        first += -(-sum(primes[l]) // multiple) * multiple
    return out, first


def random_config(rng):
    n = rng.randint(2, 6)
    vocab = rng.choice([7, 64, 256, 5000, 99092, 248320, 1 << 24])
    config = {"hash": rng.choice(["pcg64", "pcg64", "splitmix64"]), "seed": rng.choice([0, 1, 1234, 2**40 + 3, 2**61 + 5]),
              "compressed_vocab": vocab, "pad_id": rng.randrange(vocab), "max_ngram": n, "heads": rng.randint(1, 9),
              "layer_ids": rng.sample(range(40), rng.randint(1, 3)),
              "base_rows": [rng.choice([2, 50, 1000, 1001, 65536, 646400, 16_000_000, 1_000_000_000]) for _ in range(n - 1)],
              "rows_multiple": rng.choice([1, 1, 128])}
    rule = rng.choice(["none", "reset", "eos"])
    if rule != "none":
        config.update(boundary=rule, boundary_id=rng.randrange(min(vocab, 5)))
    return config


def golden(count=16, length=14, seed=20):
    rng, cases = random.Random(seed), []
    for _ in range(count):
        config = random_config(rng)
        few = min(config["compressed_vocab"], 5)  # borders and repeats must happen
        ids = [rng.choice([-1, rng.randrange(few), rng.randrange(few), rng.randrange(config["compressed_vocab"])])
               if rng.random() < 0.9 else config.get("boundary_id", 0) for _ in range(length)]
        table, total = rows(config, ids)
        cases.append({"config": config, "ids": ids, "rows_total": str(total),
                      "multipliers": [[str(m) for m in multipliers(config, l)] for l in config["layer_ids"]],
                      "primes": [[str(p) for p in layer] for layer in all_primes(config)],
                      "rows": [[[str(r) for r in row] for row in layer] for layer in table]})
    return {"made_by": "tools/engram_reference.py", "numpy": np.__version__, "cases": cases}


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        json.dump(golden(), out, separators=(",", ":"))
