"""The experiments with mixtures of experts (designs.py says what an experiment is)."""
import itertools

from paired import against, compared, paired, spread
from runs import table_rows
from sizes import CONV, count, model, pattern, run_config, table

TOP_K = 2
BALANCE = {"balance": 0.01, "bias_rate": 0.005}  # a small price, and a bias that does most of it


def mixture(experts, hidden, shared_hidden):
    return {"type": "moe", "hidden": hidden, "experts": experts, "top_k": TOP_K, "shared": 1, "shared_hidden": shared_hidden, "selection_bias": True}


def parameters(config):
    """(all, those that multiply a token) of a config whose layers have one kind of feed-forward; table rows are among the first."""
    ffn, layers, d = config["defaults"]["ffn"], len(config["layers"]), config["d_model"]

    def with_width(width):
        return count(config | {"defaults": config["defaults"] | {"ffn": {"type": "dense", "hidden": width}}})
    rows = sum(table_rows(t) * t["head_dim"] for t in config.get("tables", {}).values())
    if ffn["type"] == "dense":
        return count(config), count(config) - rows
    router = layers * ffn["experts"] * (d + 1)
    return (with_width(ffn["experts"] * ffn["hidden"] + ffn["shared_hidden"]) + router,
            with_width(ffn["top_k"] * ffn["hidden"] + ffn["shared_hidden"]) + router - rows)


def allocated(size, experts, classes):
    """The model of that many experts whose other parameters lie in a table: as many parameters, and as many that multiply, as with the most experts.
    The module's projections are paid for by a narrower shared expert."""
    most = model(size, ffn=mixture(size.expert_counts[0], size.expert_hidden, 2 * size.expert_hidden))
    if experts == size.expert_counts[0]:
        return most
    all_wanted, active_wanted = parameters(most)

    def make(shared, rows):
        return model(size, ffn=mixture(experts, size.expert_hidden, shared), table=table(size, classes, rows=rows), memory=CONV)
    excess = parameters(make(2 * size.expert_hidden, 8))[1] - active_wanted
    shared = 2 * size.expert_hidden - round(excess / (3 * size.d_model * size.layers))
    _, active = parameters(make(shared, 8))
    asleep = 3 * size.d_model * size.expert_hidden * size.layers * (experts - TOP_K)
    return make(shared, max(8, round((all_wanted - active - asleep) / (4 * size.row_dim))))


def allocation(lab):
    """(j) Experts or memory: how should parameters that a token does not multiply be divided?

    Claim (Engram, section 2.2): at equal parameters and equal operations the loss over the share of experts is U-shaped; about 75 to 80 % in experts
    is best, 40 % about as good as experts alone. Here the share counts routed experts beyond the two that a token passes; what they lose becomes rows of one
    table, and its projections are paid for by a narrower shared expert.
    """
    size, variants, points, measures = lab.size, [], [], []
    most = size.expert_counts[0]
    for experts in size.expert_counts:
        share = (experts - TOP_K) / (most - TOP_K)
        config = allocated(size, experts, lab.classes())
        _, active = parameters(config)
        about = f"{experts} routed experts{'' if experts == most else ' and a table'}; {active:,} parameters multiply a token"
        variant, results = tuned(lab, f"{100 * share:.0f} % experts", about, config)
        variants.append(variant)
        points.append((100 * share, variant["name"]))
        measures.append(load_measure(variant["name"], results))
    active = parameters(allocated(size, most, lab.classes()))[1]
    dense = size.hidden + round((active - count(model(size))) / (3 * size.d_model * size.layers))
    variants.append(lab.trained("dense, equal operations", "no experts and no table", model(size, hidden=dense)))
    return {"variants": variants, "pairs": against(variants, "100 % experts"), "measures": measures,
            "line": {"x": [x for x, _ in points], "names": [name for _, name in points], "label": "share of the sparse parameters in experts, %", "level": "dense, equal operations"}}


def tuned(lab, name, about, config, experts=True):
    label = "".join(c if c.isalnum() else "-" for c in name)
    return lab.tuned(name, about, lambda seed, rate: lab.runner.train(label, run_config(lab.size, config, seed, rate, experts=BALANCE if experts else None)))


def load_measure(name, results):
    values = [result["load_cv"] for result in results]
    mean, sd = spread(values)
    return {"name": f"{name}: variation of the experts' load", "values": values, "mean": mean, "sd": sd}


def combinations(lab):
    """(k) Hybrid attention, experts and spikes, alone and together (as SpikingBrain's Table 13).

    Claim (converted Qwen3-1.7B, 5 B tokens; HellaSwag and MMLU, higher is better): base 60.2 and 61.8, H(ybrid) 57.9 and 56.1, M(ixture) 60.3 and 61.9,
    S(pikes) 59.6 and 61.2, H+M 57.9 and 56.1, H+S 57.4 and 54.9, M+S 59.7 and 59.2, H+M+S 57.8 and 55.0: hybrid attention costs most, experts nothing, spikes
    little. Here models are trained from scratch and losses compared. A mixture multiplies a token by as many parameters as the dense layer (two of eight experts
    and a shared one, each a third as wide); spikes are in all projections, k = 3, no dead zone.
    """
    size, part, variants, by_name = lab.size, lab.size.part_hidden, [], {}
    spike = {"type": "spike", "k": 3}
    spikes = {"default": "float"} | {name: spike for name in ("q", "k", "v", "o", "gate", "up", "down")}
    parts = {"H": "gated linear, window and full attention", "M": "a mixture of experts", "S": "spikes"}
    for chosen in [c for n in range(4) for c in itertools.combinations("HMS", n)]:
        name = "+".join(chosen) or "base"
        config = model(size, mixers=pattern(size, "gla", "window", "gla", "full") if "H" in chosen else None,
                       ffn=mixture(8, part, part) if "M" in chosen else {"type": "dense", "hidden": 3 * part}, activation=spikes if "S" in chosen else None)
        by_name[name], _ = tuned(lab, name, ", ".join(parts[c] for c in chosen) or "full attention, dense, floats", config, experts="M" in chosen)
        variants.append(by_name[name])
    measures = []
    for feature, about in parts.items():
        effects = []
        for seed in range(len(lab.seeds)):
            without = [name for name in by_name if feature not in name]
            gaps = [by_name["+".join(sorted(({*name.split("+")} - {"base"}) | {feature}))]["values"][seed] - by_name[name]["values"][seed] for name in without]
            effects.append(sum(gaps) / len(gaps))
        measures.append({"name": f"{feature} ({about}): what it adds to the loss, mean of the four models with it less the four without", "values": effects} | paired(effects, [0] * len(effects)))
    return {"variants": variants, "pairs": against(variants, "base") + compared(variants, ("H+M+S", "H+M")), "measures": measures}
