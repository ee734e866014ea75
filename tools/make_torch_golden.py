#!/usr/bin/env python3
"""Makes tests/data/torch: checkpoints that torch itself wrote, and what torch reads from the valid ones.

    pip install torch numpy
    tools/make_torch_golden.py tests/data/torch tests/fuzz/corpus/torch_checkpoint

good.bin is a state dict as modules save it, with every storage type that the reader knows, views into a shared
storage, a parameter and a scalar; strided.bin holds a transposed matrix; NAME.json says what each tensor holds. The other files are whole and harmless but must
be refused: each asks for something that is no contiguous tensor, or is in a form that no published checkpoint uses. One
of them, run.bin, would write a file when Python's own unpickler reads it; the tests check that none appears.
The second folder gets the same files and their bare pickles as seeds for fuzzing.
"""
import collections
import json
import os
import pathlib
import random
import sys
import zipfile

import numpy as np
import torch


class Runs:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch torch_pickle_was_executed",)


def good():
    torch.manual_seed(7)
    module = torch.nn.Sequential(collections.OrderedDict(up=torch.nn.Linear(3, 4), norm=torch.nn.LayerNorm(4)))
    state = module.state_dict()  # an OrderedDict with the attribute _metadata
    base = torch.arange(24, dtype=torch.float32)
    state["whole"] = base.view(2, 3, 4)
    state["slice"] = base[5:9]
    state["one_row"] = base.view(6, 4).t()[:, 2:3].t()  # strides of a dimension of one do not matter
    state["parameter"] = torch.nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.bfloat16).view(1, 5))
    state["scalar"] = torch.tensor(2.5)
    for name, dtype in {"half": torch.float16, "double": torch.float64, "long": torch.int64, "int": torch.int32,
                        "short": torch.int16, "char": torch.int8, "byte": torch.uint8}.items():
        state[name] = torch.arange(3).to(dtype)
    return state


BAD = {
    "run": {"weight": torch.ones(2), "more": Runs()},
    "number": {"weight": torch.ones(2), "epoch": 3},
    "nested": {"model": {"weight": torch.ones(2)}},
    "a_list": [torch.ones(2)],
    "bool": {"mask": torch.ones(2, dtype=torch.bool)},
    "numpy": {"array": np.ones(2)},
    "empty_dimension": {"none": torch.ones(0, 3)},
    "module": torch.nn.Linear(2, 2),
    "set": {"weight": {1, 2}},
}


def main():
    out, seeds = map(pathlib.Path, sys.argv[1:3])
    for folder in (out, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    random.seed(0)
    state = good()
    torch.save(state, out / "good.bin")
    torch.save({"plain": torch.arange(4.0)}, out / "plain_dict.bin")
    views = {"transposed": torch.arange(6.0).view(2, 3).t()}
    torch.save(views, out / "strided.bin")
    for name, tensors in {"good": state, "strided": views}.items():
        (out / f"{name}.json").write_text(json.dumps({
            "made_with": {"torch": torch.__version__},
            "tensors": [{"name": key, "shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch."),
                         "values": t.double().flatten().tolist()} for key, t in tensors.items()]}, indent=1) + "\n")
    for name, value in BAD.items():
        torch.save(value, out / f"{name}.bin")
    torch.save({"weight": torch.ones(2)}, out / "protocol4.bin", pickle_protocol=4)
    torch.save({"weight": torch.ones(2)}, out / "before_1_6.bin", _use_new_zipfile_serialization=False)
    for file in sorted(out.glob("*.bin")):
        (seeds / file.name).write_bytes(file.read_bytes())
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                (seeds / f"{file.stem}.pkl").write_bytes(archive.read(f"{file.stem}/data.pkl"))


if __name__ == "__main__":
    main()
