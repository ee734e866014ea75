"""The experiments: which variants, trained from which configs, compared with which; those with mixtures of experts are in mixtures.py.

An experiment is a function (lab) -> {"variants": [...], "pairs": [...], ...}. The lab trains: every variant tries the same
learning rates with the first seed, and keeps the best one for all seeds. So each variant costs len(rates) + len(seeds) - 1
runs, less those that another variant or experiment has made already.
"""
import dataclasses
import json
import math
import re
import statistics

import mixtures
import texts
from paired import against, compared, crossing, paired, slope, spread
from runs import STILL, Failed, classes_of, write_json
from sizes import CONV, dense_like, mixer_of, model, pattern, run_config, table


class Lab:
    """One experiment at one size: what designs use to train and compare."""

    def __init__(self, runner, size, seeds):
        self.runner, self.size, self.seeds = runner, size, seeds
        self._classes = None

    def classes(self):
        """Classes of the tokenizer's token map."""
        if self._classes is None:
            probe = model(self.size, table=table(self.size, 1), memory={})
            self._classes = classes_of(self.runner, run_config(self.size, probe, 1, 0.001))
        return self._classes

    def reference(self, layer=1, memory=None, without=(), **fields):
        """The model with a table: gate, signed root, convolution and token classes, unless `without` or other fields say otherwise."""
        module = {name: value for name, value in (CONV | (memory or {})).items() if name not in without}
        classes = 0 if "classes" in without else self.classes()
        return model(self.size, table=table(self.size, classes, **fields), memory=module, layer=layer)

    def tuned(self, name, about, make, rates=None):
        """Runs a variant with every seed at its best learning rate; make(seed, rate) gives a result with "loss"."""
        self.runner.say(name)
        tried = {}
        for rate in rates or self.size.rates:
            try:
                tried[rate] = make(self.seeds[0], rate)["loss"]
            except Failed as failed:
                if "not a finite number" not in str(failed):
                    raise
                tried[rate] = math.inf
        best = min(tried, key=tried.get)
        results = [make(seed, best) for seed in self.seeds]
        mean, sd = spread([result["loss"] for result in results])
        rates = sorted(tried)
        return {"name": name, "about": about, "values": [result["loss"] for result in results], "mean": mean, "sd": sd, "lr": best,
                "lr_tried": {str(rate): loss if math.isfinite(loss) else None for rate, loss in tried.items()},
                "lr_at_edge": len(rates) > 1 and best in (rates[0], rates[-1]), "parameters": results[0]["parameters"],
                "table_parameters": results[0]["table_parameters"], "tokens": results[0]["tokens"],
                "tokens_per_second": statistics.median(result["tokens_per_second"] for result in results)}, results

    def trained(self, name, about, config, **fields):
        """As tuned(), of a model config; the variant alone."""
        label = "-".join(re.findall(r"[A-Za-z0-9^]+", name))
        return self.tuned(name, about, lambda seed, rate: self.runner.train(label, run_config(self.size, config, seed, rate, **fields)))[0]

    def additive(self):
        """The reference with its gate held at 1/2 and values doubled: k_norm is 0, so the gate's argument and all gradients through it are 0."""
        config = self.reference(memory={"sign0": "zero"})

        def make(seed, rate):
            start = run_config(self.size, config, seed, STILL) | {"steps": 1, "validate": {"every": 1, "tokens": self.size.length}}
            folder = self.runner.edited("additive", self.runner.train("start", start)["checkpoint"], {"engram.k_norm.weight": 0.0, "engram.v_proj.weight": 2.0})
            return self.runner.train("additive", run_config(self.size, self.runner.relative(folder), seed, rate))
        return self.tuned("additive", "the reference without its gate: values are added as they are (a gate held constant)", make)[0]

    def base(self):
        return self.trained("no table", "the dense model alone", model(self.size))

    def engram(self):
        return self.trained("reference", "a table before layer 1: orders 2 and 3, gate, signed root, convolution, token classes", self.reference())


# ---- (a) ... (i) -----------------------------------------------------------------------------------------------------


def rows(lab):
    """(a) Does the loss fall in a straight line with the logarithm of the table's rows?

    Claim (Engram): with a fixed backbone the validation loss falls log-linearly from 2.6e5 to 1.0e7 slots.
    """
    size, variants, points = lab.size, [lab.base()], []
    for of_a_head in sorted({*size.more_rows, size.rows}):
        if of_a_head == size.rows:
            variant = lab.engram() | {"name": f"2^{math.log2(4 * of_a_head):.0f} rows"}
        else:
            variant = lab.trained(f"2^{math.log2(4 * of_a_head):.0f} rows", f"a table with {of_a_head:,} rows in each of its four heads", lab.reference(rows=of_a_head))
        variants.append(variant)
        points.append((math.log2(4 * of_a_head), variant))
    slopes = [slope([(x, variant["values"][i]) for x, variant in points]) for i in range(len(lab.seeds))]
    return {"variants": variants, "pairs": against(variants, "no table"),
            "measures": [{"name": "loss for each doubling of the rows (slope over log2 rows)", "values": slopes} | paired(slopes, [0] * len(slopes))],
            "line": {"x": [x for x, _ in points], "names": [variant["name"] for _, variant in points], "label": "log2 of the rows of the table", "level": "no table"}}


def equal(lab):
    """(b) Is a table worth more than the same number of parameters in the feed-forward, and is it the gate or the hash that helps?

    Claims: a table lowers the loss at equal parameters of a mixture of experts (Engram); a dense model of 1.3 B did not gain
    (deepseek-ai/Engram#20); a table in which all n-grams collide does as well (deepseek-ai/Engram#24), and so does adding without a gate.
    """
    size = lab.size
    one = lab.reference(heads=1, head_dim=2 * size.row_dim, base_rows=[2, 2])
    variants = [lab.base(), lab.engram(),
                lab.trained("dense, equal parameters", "no table, feed-forward widened to the reference's number of parameters", dense_like(size, lab.reference())),
                lab.additive(), lab.trained("capacity 1", "one head of 2 or 3 rows an order, the smallest table there is: all n-grams collide", one)]
    return {"variants": variants, "pairs": compared(variants, ("reference", "no table"), ("reference", "dense, equal parameters"), ("reference", "additive"),
                                                    ("reference", "capacity 1"), ("capacity 1", "no table"))}


def layer(lab):
    """(c) Before which layer is the table best?

    Claim (Engram, 12 layers): before the second; before the first is worse, and later is steadily worse.
    """
    variants = []
    for i in range(lab.size.layers):
        variant = lab.engram() if i == 1 else lab.trained(f"layer {i}", f"the table before layer {i} (from 0)", lab.reference(layer=i))
        variants.append(variant | {"name": f"layer {i}"})
    return {"variants": variants, "pairs": against(variants, "layer 1"),
            "line": {"x": list(range(lab.size.layers)), "names": [variant["name"] for variant in variants], "label": "layer that the table stands before (from 0)"}}


def components(lab):
    """(d) What do the parts of the module bring?

    Claim (Engram): gate and token classes matter most, the convolution hardly, order 4 is slightly worse at an equal number of rows.
    The signed root is in the authors' code, not in the article. The ablation of four residual streams is not here: models have one.
    """
    r = lab.size.rows
    variants = [lab.engram(), lab.additive() | {"name": "no gate"},
                lab.trained("no signed root", "the gate is the sigmoid of the plain product", lab.reference(memory={"signed_sqrt": False})),
                lab.trained("no convolution", "values are not mixed along the text", lab.reference(without=("conv",))),
                lab.trained("no compression", "tokens are hashed as they are, not by class", lab.reference(without=("classes",))),
                lab.trained("order 2 alone", "the same number of rows, all for pairs of tokens", lab.reference(max_ngram=2, base_rows=[2 * r])),
                lab.trained("orders 2, 3, 4", "the same number of rows, for three orders", lab.reference(max_ngram=4, base_rows=[2 * r // 3] * 3))]
    return {"variants": variants, "pairs": against(variants, "reference")}


def attention(lab):
    """(e) What do cheaper kinds of attention cost at equal data (as SpikingBrain's Table 12)?

    Claim (converted Qwen3-1.7B, 5 B tokens, MMLU): full 61.8, window of 4,096 61.7, linear : window 1 : 1 56.1, linear alone 39.9. Here models are
    trained from scratch and losses compared; "linear" is the gated linear attention of SpikingBrain-7B.
    """
    size = lab.size
    variants = [lab.base() | {"name": "full"}]
    for name, about, kinds in (("window", f"every layer sees the last {size.window} tokens", ["window"]), ("linear", "gated linear attention in every layer", ["gla"]),
                               ("linear : window, 1 : 1", "taking turns", ["gla", "window"]), ("delta", "the gated delta rule in every layer", ["delta"]),
                               ("delta : full, 3 : 1", "full attention in every fourth layer", ["delta", "delta", "delta", "full"])):
        variants.append(lab.trained(name, about, model(size, mixers=pattern(size, *kinds))))
    return {"variants": variants, "pairs": against(variants, "full")}


def row_optimiser(lab):
    """(f) How should rows be updated?

    Claim (Engram, section 4.1): Adam with five times the learning rate and no weight decay; others keep one number a row.
    """
    variants = [lab.engram() | {"name": "adam × 5"}]
    for kind, scale, state in (("adam", 1, "two moments a value"), ("scalar", 5, "one number a row"), ("scalar", 1, "one number a row")):
        variants.append(lab.trained(f"{kind} × {scale}", f"{state}, {scale} times the learning rate", lab.reference(), rows={"type": kind, "lr_scale": scale}))
    return {"variants": variants, "pairs": against(variants, "adam × 5")}


def facts(lab):
    """(g) Take the table away after training: are facts lost, and does copying from the context stay?

    Claim (Engram): without the table factual tasks keep 29 to 44 % of their score, reading comprehension 81 to 93 %. The language here is
    made up: a fact is named by two letters, a span of digits is said twice in one document (examples/experiments/texts.py).
    """
    size, runner = lab.size, lab.runner
    texts.prepare_facts(runner, size)
    questions = json.loads((runner.work / "facts" / "questions.json").read_text())
    small = dataclasses.replace(size, vocab=texts.END + 1)
    with_table = model(small, table=table(small, 0, rows=size.fact_rows, boundary_id=texts.END, pad_id=texts.END), memory={})
    variants, shares = [], {}
    for name, about, config in (("no table", "the dense model alone", model(small)), ("reference", "with a table of byte 2- and 3-grams before layer 1, without convolution", with_table)):
        label = "facts-" + name.replace(" ", "-")
        variant, results = lab.tuned(name, about, lambda seed, rate, config=config, label=label:
                                     runner.train(label, run_config(small, config, seed, rate, data="facts", tokens=size.fact_tokens)))
        models = {name: [result["checkpoint"] for result in results]}
        if config is with_table:
            models["table removed"] = [runner.edited("no-values", result["checkpoint"], {"engram.v_proj.weight": 0.0}) for result in results]
        variants.append(variant)
        for key, folders in models.items():
            shares[key] = [asked(runner, folder, questions) for folder in folders]
    measures = [{"name": f"{kind}, {key}: share right", "values": [share[kind] for share in of_seeds]} for kind in ("fact", "copy") for key, of_seeds in shares.items()]
    for measure in measures:
        measure["mean"], measure["sd"] = spread(measure["values"])
    lost = {kind: [whole[kind] - without[kind] for whole, without in zip(shares["reference"], shares["table removed"])] for kind in ("fact", "copy")}
    for kind in lost:
        measures.append({"name": f"{kind}: share right that goes with the table", "values": lost[kind]} | paired(lost[kind], [0] * len(lost[kind])))
    measures.append({"name": "facts lose more than copies by", "values": [a - b for a, b in zip(lost["fact"], lost["copy"])]} | paired(lost["fact"], lost["copy"]))
    return {"variants": variants, "pairs": compared(variants, ("reference", "no table")), "measures": measures, "tokens": size.fact_tokens,
            "note": f"{len(questions)} held-out documents ask {sum(kind == 'fact' for _, asks in questions for _, kind in asks)} facts and "
                    f"{sum(kind == 'copy' for _, asks in questions for _, kind in asks)} copies; guessing is right one time in ten."}


def asked(runner, folder, questions):
    """texts.answers(), kept beside the model."""
    done = folder / "answers.json"
    if not done.exists():
        write_json(done, texts.answers(runner, folder, questions))
    return json.loads(done.read_text())


def hybrid(lab):
    """(h) Is a hybrid with a table better than a plain Transformer of equal parameters, at equal tokens and at equal time?

    No article claims it at this size. Time is training time at the sequence length of the size, where full attention is still cheap.
    """
    size = lab.size
    ours = model(size, mixers=pattern(size, "gla", "window", "gla", "full"), table=table(size, lab.classes()), memory=CONV)
    plain = dense_like(size, ours)
    variants = [lab.trained("hybrid and table", "gated linear, window and full attention, and the table", ours, curve=size.curve_points),
                lab.trained("Transformer", "full attention, feed-forward widened to equal parameters, equal tokens", plain, curve=size.curve_points)]
    faster = variants[1]["tokens_per_second"] / variants[0]["tokens_per_second"]
    step = size.sequences * size.length
    tokens = max(1, round(size.tokens * faster / step)) * step
    variants.append(lab.trained("Transformer, equal time", f"as many tokens as it trains in the time of the first ({faster:.2f} times as many)", plain, tokens=tokens, curve=size.curve_points))
    return {"variants": variants, "pairs": compared(variants, ("hybrid and table", "Transformer"), ("hybrid and table", "Transformer, equal time"))}


def conversion(lab):
    """(i) How much data does a conversion save beside training the same hybrid from scratch?

    Claim (SpikingBrain): a hybrid is made from a Transformer with less than 2 % of the tokens that training it takes, a ratio of 50 or more.
    A Transformer is trained on N tokens and converted with a share of N. The ratio is: tokens after which the hybrid trained from scratch first has the
    converted model's loss, over the conversion's tokens (> : it never had it; the Transformer's own N tokens are not counted). From-scratch curves are
    read on the way down one cosine schedule, which flatters the ratio where the crossing is early.
    """
    runner = lab.runner
    size = dataclasses.replace(lab.size, **lab.size.convert_model)
    total = size.convert_tokens
    mixers = pattern(size, "gla", "window", "gla", "full")
    variant, teachers = lab.tuned("Transformer", "full attention, N tokens: what is converted",
                                  lambda seed, rate: runner.train("teacher", run_config(size, model(size), seed, rate, tokens=total, curve=size.curve_points)))
    scratch_variant, scratch = lab.tuned("hybrid from scratch", "gated linear, window and full attention, N tokens",
                                         lambda seed, rate: runner.train("scratch", run_config(size, model(size, mixers=mixers), seed, rate, tokens=total, curve=size.curve_points)))
    variants, measures, marks = [variant, scratch_variant], [], []
    for share in size.convert_shares:
        def make(seed, rate, share=share):
            teacher = teachers[lab.seeds.index(seed)]
            recipe = recipe_of(size, mixers, seed, rate, share * total)
            folder = runner.converted(f"convert-{share}", teacher["checkpoint"], recipe)
            config = run_config(size, "", seed, STILL)
            loss = runner.validation_loss("converted", config, folder)
            return teacher | {"loss": loss, "tokens": json.loads((folder / "conversion.json").read_text())["tokens"]}
        variant, results = lab.tuned(f"converted with {share:.3g} N", "the Transformer made the same hybrid: layer by layer, then by distillation", make, rates=size.convert_rates)
        variants.append(variant)
        reached = [crossing(run["curve"], result["loss"]) for run, result in zip(scratch, results)]
        measures.append({"name": f"tokens from scratch for the loss of {share:.3g} N, over the conversion's", "values": [tokens / result["tokens"] for (tokens, _), result in zip(reached, results)],
                         "bounds": [bound for _, bound in reached]})
        marks.append([results[0]["tokens"], variant["mean"]])
    for measure in measures:
        measure["mean"], measure["sd"] = spread(measure["values"])
    pairs = [(variant["name"], "hybrid from scratch") for variant in variants if variant["name"] != "hybrid from scratch"]
    return {"variants": variants, "pairs": compared(variants, *pairs), "measures": measures, "tokens": total,
            "curve": {"points": scratch[0]["curve"], "marks": marks, "label": "tokens"}, "note": f"N = {total:,} tokens."}


def recipe_of(size, mixers, seed, rate, tokens):
    """A quarter of the tokens teaches each new mixer alone, the rest the whole model."""
    of_kind = {kind: [i for i, mixer in enumerate(mixers) if mixer["type"] == kind] for kind in ("gla", "window")}
    batch = min(size.sequences, max(1, int(tokens) // size.length // 16))  # at least 16 steps in all
    training = {"sequences": batch, "length": size.length, "lr": rate}
    return {"mneme_convert": 1, "seed": seed, "data": {"train": ["../../data/some.jsonl"]},
            "stages": [{"kind": "hybrid", "to": mixer_of(size, "gla"), "layers": of_kind["gla"]}, {"kind": "window", "window": size.window, "layers": of_kind["window"]},
                       {"kind": "transfer", "tokens": int(tokens / 4), **training},
                       {"kind": "distill", "tokens": int(tokens * 3 / 4), "cross_entropy": 0.5, "train": ["all"], **training}]}


EXPERIMENTS = {"rows": rows, "equal": equal, "layer": layer, "components": components, "attention": attention, "row-optimiser": row_optimiser, "facts": facts,
               "hybrid": hybrid, "conversion": conversion, "allocation": mixtures.allocation, "combinations": mixtures.combinations}
