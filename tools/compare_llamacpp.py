#!/usr/bin/env python3
"""Does Mneme give llama.cpp's answers? And where they differ, are both within rounding of a float reference?

For one GGUF file (llama or gemma3 architecture), on the same token ids:
  greedy      share of prompts whose greedy continuations (32 tokens) are identical in both programs
  (the same share between llama.cpp with and without flash attention shows how sensitive the model is)
  KL          mean Kullback-Leibler divergence of next-token distributions, llama.cpp || Mneme, over >= 2,000 positions,
              of each program from the reference, and of llama.cpp from itself with the other attention kernel
  perplexity  windows of --ctx tokens that do not overlap, the first half of each is context only; both programs and the
              reference see the same windows
The reference is the file's weights dequantized to float32, run by transformers on torch in float32.

    bench/setup_peer.sh --reference          # once
    build/peer/venv/bin/python tools/compare_llamacpp.py build/peer/models/smollm2-135m-q4_1.gguf

Prompts and text: bench/peer/prompts.txt, and the language reference that ships with Python (pydoc_data.topics; --text
takes a file instead). Ids come from `mneme tokenize`, so a difference in tokenizers cannot hide here or disturb.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Program:
    """llamacpp_peer or mneme_peer: the same verbs on files of ids."""

    def __init__(self, name, path, work, prefix, extra):
        self.name, self.path, self.work, self.prefix, self.extra = name, path, work, prefix, extra

    def run(self, verb, model, sequences, *more):
        ids = self.work / "ids.txt"
        ids.write_text("\n".join(" ".join(map(str, sequence)) for sequence in sequences) + "\n")
        command = self.prefix + [str(self.path), verb, str(model), "--ids", str(ids), *map(str, more), *self.extra]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def logits(self, model, ids, vocab):
        out = self.work / f"{self.name}.f32"
        self.run("logits", model, [ids], "--out", out)
        return np.fromfile(out, "<f4").reshape(len(ids), vocab)

    def lines(self, verb, model, sequences, *more):
        """One line a sequence; ten sequences a process, so that a long comparison is many short runs."""
        out = []
        for first in range(0, len(sequences), 10):
            out += self.run(verb, model, sequences[first:first + 10], *more).splitlines()
        return out

    def generate(self, model, sequences, n):
        return [[int(word) for word in line.split()] for line in self.lines("generate", model, sequences, "--n", n)]

    def nll(self, model, windows, skip):
        lines = self.lines("nll", model, windows, "--skip", skip)
        return np.array([float(word) for line in lines for word in line.split()])


class Reference:
    """The dequantized weights in transformers, float32."""

    def __init__(self, path):
        import torch
        import transformers
        from gguf import GGUFReader
        from gguf.quants import dequantize
        self.torch = torch
        reader = GGUFReader(path)
        meta = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.ggml.m")}
        arch = meta["general.architecture"]
        weights = {t.name: np.array(dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
        config = self.config(transformers, arch, meta, weights)
        self.model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        state = {self.rename(name, arch): torch.from_numpy(self.value(name, weight, arch, config))
                 for name, weight in weights.items()}
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        self.model.tie_weights()
        if unexpected or [name for name in missing if name != "lm_head.weight"]:
            raise SystemExit(f"reference: missing {missing}, unexpected {unexpected}")

    @staticmethod
    def config(transformers, arch, meta, weights):
        def get(key):
            return meta[f"{arch}.{key}"]
        heads, d = get("attention.head_count"), get("embedding_length")
        common = {
            "vocab_size": weights["token_embd.weight"].shape[0], "hidden_size": d, "num_attention_heads": heads,
            "intermediate_size": get("feed_forward_length"), "num_hidden_layers": get("block_count"),
            "num_key_value_heads": get("attention.head_count_kv"),
            "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
            "max_position_embeddings": get("context_length"), "tie_word_embeddings": "output.weight" not in weights,
            "head_dim": meta.get(f"{arch}.attention.key_length", d // heads),
        }
        if arch == "llama":
            return transformers.LlamaConfig(
                **common, rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base")})
        if arch == "gemma3":
            rope = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                    "full_attention": {"rope_type": "default", "rope_theta": get("rope.freq_base")}}
            return transformers.Gemma3TextConfig(
                **common, sliding_window=get("attention.sliding_window"), query_pre_attn_scalar=common["head_dim"],
                rope_parameters=rope,
                layer_types=["sliding_attention" if (i + 1) % 6 else "full_attention"
                             for i in range(get("block_count"))])
        raise SystemExit(f"reference: architecture {arch} is not supported, only llama and gemma3")

    @staticmethod
    def rename(name, arch):
        from make_golden_gguf import GEMMA_NORMS, LAYER_NAMES, PLAIN_NORMS
        whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
                 "output.weight": "lm_head.weight"}
        if name in whole:
            return whole[name]
        _, layer, module, kind = name.split(".")
        names = LAYER_NAMES | (GEMMA_NORMS if arch == "gemma3" else PLAIN_NORMS)
        original = {short: long for long, short in names.items()}[module]
        return f"model.layers.{layer}.{original}.{kind}"

    @staticmethod
    def value(name, weight, arch, config):
        if arch == "gemma3" and name.endswith("norm.weight"):
            return weight - 1
        if arch == "llama" and (".attn_q." in name or ".attn_k." in name):  # interleaved pairs back to two halves
            heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
            rows, cols = weight.shape
            return np.ascontiguousarray(
                weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols))
        return weight

    def logits(self, ids):
        with self.torch.no_grad():
            return self.model(self.torch.tensor([ids]), use_cache=False).logits[0].numpy()

    def nll(self, windows, skip):
        parts = []
        for window in windows:
            rows = self.torch.from_numpy(self.logits(window)[skip:-1])
            targets = self.torch.tensor(window[skip + 1:])
            parts.append(self.torch.nn.functional.cross_entropy(rows.double(), targets, reduction="none").numpy())
        return np.concatenate(parts)


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def divergence(p, q):
    """KL(p || q) of each row, from log-probabilities."""
    return (np.exp(p) * (p - q)).sum(axis=1)


def tokenize(mneme, model, text, special):
    path = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"mneme-compare-{os.getpid()}.txt"
    try:
        path.write_text(text)
        out = subprocess.run([mneme, "tokenize", model, f"@{path}", "--json"] + ([] if special else ["--no-special"]),
                             capture_output=True, text=True)
    finally:
        path.unlink(missing_ok=True)
    if out.returncode != 0:
        raise SystemExit(f"mneme tokenize: {out.stderr.strip()}")
    return json.loads(out.stdout)["ids"]


def real_text():
    import pydoc_data.topics
    return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def compare_greedy(mneme, peer, other, model, prompts, n):
    ours, theirs, again = (program.generate(model, prompts, n) for program in (mneme, peer, other))
    same = [a == b for a, b in zip(ours, theirs)]
    firsts = [next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
              for a, b, equal in zip(ours, theirs, same) if not equal]
    return {"prompts": len(prompts), "identical": sum(same), "share": sum(same) / len(same),
            "share_peer_with_itself": sum(a == b for a, b in zip(theirs, again)) / len(theirs),
            "first_difference_at": sorted(firsts)}


def compare_distributions(mneme, peer, other, reference, model, windows, vocab):
    kl = {"peer_mneme": [], "peer_peer": [], "reference_mneme": [], "reference_peer": []}
    agree = []
    for window in windows:
        p, m, o = (log_softmax(program.logits(model, window, vocab)) for program in (peer, mneme, other))
        kl["peer_peer"].append(divergence(p, o))
        kl["peer_mneme"].append(divergence(p, m))
        agree.append(p.argmax(axis=1) == m.argmax(axis=1))
        if reference:
            r = log_softmax(reference.logits(window))
            kl["reference_mneme"].append(divergence(r, m))
            kl["reference_peer"].append(divergence(r, p))
    result = {"positions": sum(map(len, windows)), "top1_agreement": float(np.concatenate(agree).mean())}
    for name, parts in kl.items():
        if parts:
            values = np.concatenate(parts)
            result[name] = {"mean": float(values.mean()), "p99": float(np.quantile(values, 0.99)),
                            "max": float(values.max())}
    return result


def compare_perplexity(mneme, peer, reference, model, windows, skip):
    values = {"mneme": mneme.nll(model, windows, skip), "peer": peer.nll(model, windows, skip)}
    if reference:
        values["reference"] = reference.nll(windows, skip)
    result = {"tokens": sum(map(len, windows)), "scored": len(values["peer"])}
    for name, nll in values.items():
        result[name] = {"ppl": float(np.exp(nll.mean())), "stderr": float(nll.std() / len(nll) ** 0.5)}
    result["mneme_over_peer"] = result["mneme"]["ppl"] / result["peer"]["ppl"] - 1
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--mneme", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--peer", type=pathlib.Path, default=ROOT / "build/peer")
    parser.add_argument("--prompts", type=pathlib.Path, default=ROOT / "bench/peer/prompts.txt")
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--greedy", type=int, default=32, help="tokens per continuation")
    parser.add_argument("--positions", type=int, default=2048, help="positions of the KL comparison")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=51200, help="tokens of the perplexity comparison")
    parser.add_argument("--parts", default="greedy,kl,perplexity")
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--reference-perplexity", action="store_true", help="the reference too (slow)")
    parser.add_argument("--kv", default="f16", help="KV cache of both programs")
    parser.add_argument("--activation", default="auto", help="of Mneme")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--flash", default="on", help="flash attention of the peer")
    parser.add_argument("--prefix", default="", help="command put before every program run")
    args = parser.parse_args()

    os.environ.setdefault("PEER_BACKENDS",
                          str((args.peer / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64").resolve()))
    scratch = tempfile.TemporaryDirectory(dir=args.peer)
    work = pathlib.Path(scratch.name)
    prefix = shlex.split(args.prefix)
    common = ["--kv", args.kv, "--threads", str(args.threads)]
    peer = Program("peer", args.peer / "llamacpp_peer", work, prefix, [*common, "--flash", args.flash])
    # The peer beside itself with the other attention kernel: how far answers move when only float order changes.
    other = Program("other", peer.path, work, prefix, [*common, "--flash", "off" if args.flash == "on" else "on"])
    mneme = Program("mneme", args.mneme / "mneme_peer", work, prefix, [*common, "--activation", args.activation])
    parts = args.parts.split(",")
    reference = None if args.no_reference else Reference(args.model)

    text = args.text.read_text() if args.text else real_text()
    cli = str(args.mneme / "mneme")
    result = {"model": args.model.name, "text_sha256": hashlib.sha256(text.encode()).hexdigest()}
    if "greedy" in parts:
        prompts = [tokenize(cli, str(args.model), line, True) for line in args.prompts.read_text().splitlines() if line]
        result["greedy"] = compare_greedy(mneme, peer, other, args.model, prompts, args.greedy)
        print(json.dumps({"greedy": result["greedy"]}), file=sys.stderr)
    ids = tokenize(cli, str(args.model), text[: 8 * args.tokens], True)[: args.tokens]
    bos = ids[0]
    has_bos = bos == tokenize(cli, str(args.model), "a", True)[0] == tokenize(cli, str(args.model), "b", True)[0]
    windows = [ids[first:first + args.ctx] for first in range(0, len(ids) - args.ctx + 1, args.ctx)]
    if has_bos:  # every window begins as the model saw texts begin
        windows = [[bos] + window[1:] for window in windows]
    if "kl" in parts:
        from gguf import GGUFReader
        vocab = next(t.shape[1] for t in GGUFReader(args.model).tensors if t.name == "token_embd.weight")
        step = 256
        flat = [window[:step] for window in windows[: -(-args.positions // step)]]
        result["kl"] = compare_distributions(mneme, peer, other, reference, args.model, flat, int(vocab))
        print(json.dumps({"kl": result["kl"]}), file=sys.stderr)
    if "perplexity" in parts:
        result["perplexity"] = compare_perplexity(mneme, peer, reference if args.reference_perplexity else None,
                                                  args.model, windows, args.ctx // 2)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
