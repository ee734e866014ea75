"""How large the experiments are, and the models and run configs that they are made of."""
import dataclasses

from runs import table_rows


@dataclasses.dataclass(frozen=True)
class Size:
    name: str
    about: str
    # the model
    vocab: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    window: int
    # its table: 2 heads of each order, orders 2 and 3, before layer 1
    rows: int  # of a head
    row_dim: int
    more_rows: tuple  # experiment "rows"
    # a run
    length: int
    sequences: int
    tokens: int
    validate_tokens: int
    save_every: int
    rates: tuple  # learning rates that every variant tries
    # experiment "facts"
    facts: int
    fact_spans: int
    fact_items: int
    fact_documents: int
    fact_questions: int
    fact_tokens: int
    fact_rows: int
    # experiment "conversion"
    convert_tokens: int  # N
    convert_shares: tuple  # of N
    convert_rates: tuple
    convert_bytes: int
    convert_model: dict  # what is larger than above
    # experiments "allocation" and "combinations": of a routed expert, and how many experts the points of the curve have
    expert_hidden: int
    expert_counts: tuple
    part_hidden: int  # combinations: a third of the feed-forward, a multiple of 32, so that its rows can spike
    curve_points: int = 8

    @property
    def steps(self):
        return -(-self.tokens // (self.sequences * self.length))


SIZES = {size.name: size for size in (
    Size("smoke", "seconds, to test the program; its numbers mean nothing", vocab=272, d_model=32, layers=3, heads=2, kv_heads=1, head_dim=16, hidden=48, window=8,
         rows=61, row_dim=8, more_rows=(16, 256), length=32, sequences=4, tokens=1280, validate_tokens=512, save_every=5, rates=(0.01, 0.02),
         facts=40, fact_spans=1, fact_items=2, fact_documents=200, fact_questions=2, fact_tokens=1280, fact_rows=61,
         convert_tokens=6400, convert_shares=(0.1,), convert_rates=(3e-3,), convert_bytes=20000, convert_model={}, expert_hidden=16, expert_counts=(8, 5), part_hidden=32, curve_points=4),
    Size("small", "minutes an experiment on one core", vocab=1024, d_model=64, layers=4, heads=4, kv_heads=2, head_dim=16, hidden=176, window=32,
         rows=2048, row_dim=16, more_rows=(128, 512, 8192), length=128, sequences=8, tokens=100_000, validate_tokens=32768, save_every=0, rates=(0.01, 0.02, 0.04),
         facts=400, fact_spans=2, fact_items=14, fact_documents=20000, fact_questions=50, fact_tokens=250_000, fact_rows=2048,
         convert_tokens=200_000, convert_shares=(0.02, 0.1), convert_rates=(1e-3, 3e-3, 1e-2), convert_bytes=2_000_000, convert_model={},
         expert_hidden=32, expert_counts=(34, 28, 22, 16, 10), part_hidden=64),
    Size("published", "hours an experiment on two cores, in pieces of any length", vocab=2048, d_model=128, layers=6, heads=4, kv_heads=2, head_dim=32, hidden=352, window=64,
         rows=8192, row_dim=32, more_rows=(128, 512, 2048, 32768, 131072), length=256, sequences=16, tokens=4_000_000, validate_tokens=131072, save_every=100,
         rates=(0.002, 0.004, 0.008),
         facts=600, fact_spans=4, fact_items=30, fact_documents=100_000, fact_questions=200, fact_tokens=6_000_000, fact_rows=8192,
         convert_tokens=20_000_000, convert_shares=(0.005, 0.02, 0.05), convert_rates=(3e-4, 1e-3, 3e-3), convert_bytes=20_000_000,
         convert_model={"d_model": 256, "layers": 8, "head_dim": 64, "hidden": 512, "length": 512, "sequences": 8},
         expert_hidden=64, expert_counts=(66, 54, 42, 30, 18), part_hidden=128, curve_points=20))}


# ---- models ----------------------------------------------------------------------------------------------------------


def model(size, mixers=None, hidden=None, table=None, memory=None, layer=1, ffn=None, activation=None):
    """A config: `mixers` one a layer (default: full attention), `ffn` and `activation` of all layers, `table` and `memory` an Engram table's and module's fields, read before `layer`."""
    out = {"mneme": 1, "d_model": size.d_model, "vocab": size.vocab, "context": size.length, "tied": True,
           "defaults": {"mixer": {"heads": size.heads, "kv_heads": size.kv_heads, "head_dim": size.head_dim}, "ffn": ffn or {"type": "dense", "hidden": hidden or size.hidden}}
           | ({"activation": activation} if activation else {}),
           "layers": [{"mixer": dict(mixer)} for mixer in mixers or [{"type": "full"}] * size.layers]}
    if table is not None:
        out["tables"] = {"ngrams": table | {"layer_ids": [layer]}}
        out["layers"][layer]["memory"] = {"table": "ngrams", "layer_id": layer} | (memory or {})
    return out


def table(size, classes, rows=None, **fields):
    """The reference table, with other fields where they are given. `rows`: of each head; 0 classes: raw ids. Without base_rows every order has as many."""
    out = {"compressed_vocab": classes or size.vocab, "pad_id": 0, "max_ngram": 3, "heads": 2, "head_dim": size.row_dim, "boundary": "eos", "boundary_id": 0, "format": "f32"}
    if not classes:
        out["raw_ids"] = True
    out |= fields
    return {"base_rows": [rows or size.rows] * (out["max_ngram"] - 1)} | out


CONV = {"conv": {"kernel": 4, "dilation": 3}}  # of the reference module, as the paper's


def mixer_of(size, kind):
    return {"type": kind} | ({"window": size.window} if kind == "window" else {}) | ({"gate_rank": 8} if kind == "gla" else {})


def pattern(size, *kinds):
    return [mixer_of(size, kinds[i % len(kinds)]) for i in range(size.layers)]


def dense_like(size, target, **fields):
    """A model without table whose feed-forward is as wide as makes it nearest to `target`'s number of parameters."""
    a_unit = 3 * size.d_model * size.layers
    hidden = size.hidden + round((count(target) - count(model(size, **fields))) / a_unit)
    return model(size, hidden=hidden, **fields)


def count(config):
    """Parameters of a config of full, window, gla and delta mixers with dense feed-forwards, table rows included."""
    d, total = config["d_model"], config["vocab"] * config["d_model"] * (1 if config["tied"] else 2) + config["d_model"]
    for layer in config["layers"]:
        mixer = config["defaults"]["mixer"] | layer["mixer"]
        q, kv = mixer["heads"] * mixer["head_dim"], mixer["kv_heads"] * mixer["head_dim"]
        total += 2 * d + 2 * d * q + 2 * d * kv + 3 * d * config["defaults"]["ffn"]["hidden"]
        if mixer["type"] == "gla":
            total += mixer["gate_rank"] * (d + kv) + kv + mixer["head_dim"]
        if mixer["type"] == "delta":
            total += 2 * d * mixer["kv_heads"] + 2 * mixer["kv_heads"] + mixer["head_dim"]
        if memory := layer.get("memory"):
            rows = config["tables"][memory["table"]]
            total += 2 * d * (rows["max_ngram"] - 1) * rows["heads"] * rows["head_dim"] + 2 * d
            total += d * (memory["conv"]["kernel"] + 1) if "conv" in memory else 0
    return total + sum(table_rows(t) * t["head_dim"] for t in config.get("tables", {}).values())


# ---- runs ------------------------------------------------------------------------------------------------------------


def run_config(size, config, seed, rate, data="data", tokens=None, curve=0, rows=None, experts=None):
    """A run of `tokens`; `curve`: validations on the way, `rows`: fields of optimiser.rows, `experts`: of experts. Paths are relative to WORK/runs/LABEL/."""
    steps = -(-(tokens or size.tokens) // (size.sequences * size.length))
    optimiser = {"type": "muon", "lr": rate} | ({"rows": rows} if rows else {})
    return {"mneme_train": 1, "model": config, "tokenizer": f"../../{data}/tokenizer",
            "data": {"train": [f"../../{data}/shards/train"], "validation": [f"../../{data}/shards/validation"], "length": size.length},
            "batch": {"sequences": size.sequences}, "steps": steps, "optimiser": optimiser,
            "validate": {"every": max(1, steps // curve) if curve else steps, "tokens": size.validate_tokens},
            "save": {"every": size.save_every, "keep": 1}, "seed": seed} | ({"experts": experts} if experts else {})
