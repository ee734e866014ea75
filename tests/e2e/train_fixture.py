"""A run that takes seconds: a text from a small grammar, a tokenizer of bytes, a model of three layers with a memory table."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

import e2e

PROGRAM = pathlib.Path(os.environ.get("MNEME_TRAIN_PROGRAM", pathlib.Path(e2e.MNEME).parent / "mneme-train"))
END = 256  # the id of <|endoftext|>


def available():
    return os.access(PROGRAM, os.X_OK)


def byte_characters():
    """The printable stand-ins of the 256 bytes, as byte-level tokenizers of the GPT-2 family have them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(extra)}


def write_tokenizer(path):
    """256 bytes and an end token; no merges."""
    vocab = {c: b for b, c in byte_characters().items()}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": END, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    path.write_text(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None, "pre_tokenizer": level,
                                "post_processor": None, "decoder": level,
                                "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                                          "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}))
    (path.parent / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}))


def write_text(path, sentences, seed):
    pick = random.Random(seed)
    lines = []
    for _ in range(sentences):
        who, did, what = pick.choice(["the cat", "a bird", "my friend", "the old king"]), pick.choice(["sees", "likes", "paints"]), pick.choice(
            ["a red house", "the green sea", "two stars"])
        lines.append(f"{who} {did} {what}." + ("\n" if pick.random() < 0.2 else ""))
    path.write_text("\n".join(lines) + "\n")


MODEL = {"mneme": 1, "d_model": 32, "vocab": 257, "context": 64, "tied": True,
         "tables": {"facts": {"hash": "pcg64", "seed": 3, "compressed_vocab": 257, "raw_ids": True, "pad_id": 256, "max_ngram": 3, "heads": 2, "head_dim": 8,
                              "base_rows": [211, 307], "layer_ids": [1]}},
         "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 64}},
         "layers": [{"mixer": {"type": "full"}}, {"mixer": {"type": "gla", "gate_rank": 4}, "memory": {"table": "facts", "layer_id": 1}},
                    {"mixer": {"type": "delta"}}]}


def write_run(folder, **changes):
    """Text, tokenizer and run.json in `folder`; `changes` replace fields at the top level, None removes. The config's path."""
    folder = pathlib.Path(folder)
    write_text(folder / "train.txt", 600, 1)
    write_text(folder / "validation.txt", 60, 2)
    write_tokenizer(folder / "tokenizer.json")
    run = {"mneme_train": 1, "model": MODEL, "tokenizer": "tokenizer.json", "data": {"train": ["train.txt"], "validation": ["validation.txt"], "length": 32},
           "batch": {"sequences": 4, "accumulate": 2}, "steps": 40, "optimiser": {"lr": 0.01},
           "validate": {"every": 20, "tokens": 1024}, "save": {"every": 5, "keep": 2}, "threads": 1, "out": "out"}
    run |= changes
    path = folder / "run.json"
    path.write_text(json.dumps({k: v for k, v in run.items() if v is not None}, indent=1))
    return path


def start(config, *arguments, **options):
    """The trainer in the background, as `mneme train` starts it; Ctrl-C reaches it even where this test runs with it ignored."""
    return subprocess.Popen([e2e.MNEME, "train", str(config), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def _signals(process, field):
    """A set of signals in the status of the process's first thread, as bits."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return int(status[field], 16)


def _wait(process, what, happened):
    end = time.monotonic() + 120
    while not happened():
        if process.poll() is not None:
            raise AssertionError(f"ended before {what}: {process.communicate()[1][-500:]}")
        if time.monotonic() > end:
            raise AssertionError(f"waited 120 s for {what}")
        time.sleep(0.01)


def wait_for_handlers(process):
    """Returns once the trainer has taken over SIGINT and SIGTERM; before that they end it as they end any program."""
    both = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    _wait(process, "its signal handlers", lambda: _signals(process, "SigCgt") & _signals(process, "SigBlk") & both == both)


def send_and_wait(process, number):
    """Sends a signal and returns once a thread has received it."""
    process.send_signal(number)
    _wait(process, f"signal {number} was received", lambda: not _signals(process, "ShdPnd") >> number - 1 & 1)


def log(folder):
    """The lines of log.jsonl that are whole."""
    text = (pathlib.Path(folder) / "log.jsonl").read_text()
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]


def losses(folder):
    """What must be equal to the bit: step -> (loss, gradient norm), and validation losses."""
    lines = log(folder)
    return ({l["step"]: (l["loss"], l["gradient_norm"]) for l in lines if "loss" in l}, {l["step"]: l["validation_loss"] for l in lines if "validation_loss" in l})
