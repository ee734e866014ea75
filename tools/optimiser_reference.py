#!/usr/bin/env python3
"""Records what PyTorch's own optimisers do, for tests/train/optimise/optimiser_test.cpp.

    tools/optimiser_reference.py tests/data/train/optimisers.json      needs PyTorch >= 2.9 (torch.optim.Muon)

Matrices, a vector and a table of rows move a few steps along given gradients: by AdamW, by torch.optim.Muon (whose
iteration runs in bf16) and by the definition of Muon in float64. The numbers are decimal.
"""
import json
import sys

import torch

def listed(tensor):
    return [float(f"{v:.9g}") for v in tensor.detach().double().flatten().tolist()]


class ExactMuon:
    """Jordan et al. 2024 with the scale of Liu et al. 2025, in float64."""

    def __init__(self, values, lr, momentum, weight_decay, ns_steps, **_):
        self.value, = values
        self.exact, self.buffer = self.value.detach().double(), torch.zeros_like(self.value, dtype=torch.float64)
        self.lr, self.momentum, self.decay, self.iterations = lr, momentum, weight_decay, ns_steps

    def step(self):
        gradient = self.value.grad.double()
        self.buffer = self.momentum * self.buffer + (1 - self.momentum) * gradient
        x = (1 - self.momentum) * gradient + self.momentum * self.buffer
        x = x / x.norm()
        for _ in range(self.iterations):
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        self.exact = self.exact * (1 - self.lr * self.decay) - self.lr * 0.2 * max(x.shape) ** 0.5 * x
        self.value.data.copy_(self.exact)


def trajectory(make, shape, seed, steps=10):
    generator = torch.Generator().manual_seed(seed)
    value = torch.nn.Parameter(torch.randn(shape, generator=generator))
    gradients = [torch.randn(shape, generator=generator) * (1 + step % 3) for step in range(steps)]
    out = {"shape": list(shape), "start": listed(value), "gradients": [listed(g) for g in gradients], "values": []}
    optimiser = make([value])
    for gradient in gradients:
        value.grad = gradient.clone()
        optimiser.step()
        out["values"].append(listed(value))
    return out


def main(path):
    torch.set_num_threads(1)
    adamw = dict(lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    muon = dict(lr=0.02, momentum=0.95, nesterov=True, ns_steps=5, adjust_lr_fn="match_rms_adamw", weight_decay=0.1)
    golden = {
        "torch": torch.__version__,
        "adamw": trajectory(lambda p: torch.optim.AdamW(p, weight_decay=0.1, **adamw), (3, 7), 1),
        "adamw_no_decay": trajectory(lambda p: torch.optim.AdamW(p, weight_decay=0.0, **adamw), (19,), 2),
        "muon": trajectory(lambda p: torch.optim.Muon(p, **muon), (16, 24), 3, 3),
        "muon_exact": trajectory(lambda p: ExactMuon(p, **muon), (16, 24), 3, 3),
        "muon_tall": trajectory(lambda p: torch.optim.Muon(p, **muon), (24, 16), 4, 3),
        "muon_tall_exact": trajectory(lambda p: ExactMuon(p, **muon), (24, 16), 4, 3),
        "rows": trajectory(lambda p: torch.optim.Adam(p, **adamw), (5, 8), 5),
    }
    with open(path, "w") as file:
        json.dump(golden, file)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
