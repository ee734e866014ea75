"""NIR files of `mneme spikes --nir`, read back by the Python package nir in a virtual environment of its own."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
LLAMA = MODELS / "llama"
VENV = e2e.TOP / "build" / "nir-venv"
PACKAGE = "nir==1.0.8"
TEXT = "The owl hunts at night."

# Runs inside the environment: graph file, data file, safetensors file of the model.
READ_BACK = r"""
import json, struct, sys
import numpy as np
import nir

graph, data = nir.read(sys.argv[1]), nir.read_data(sys.argv[2])
data.check_nodes(graph)
blob = open(sys.argv[3], "rb").read()
size = struct.unpack("<Q", blob[:8])[0]
header = json.loads(blob[8:8 + size])

def tensor(name):
    begin, end = header[name]["data_offsets"]
    return np.frombuffer(blob[8 + size + begin:8 + size + end], "<f4").reshape(header[name]["shape"])

names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
         "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
out = {"version": nir.serialization.read_version(sys.argv[1]), "nodes": {}, "edges": graph.edges, "metadata": {k: str(v) for k, v in graph.metadata.items()},
       "k": sorted({str(n.metadata["k"]) for n in graph.nodes.values() if type(n).__name__ == "Input"}),
       "tokens": 0, "worst": 0.0, "weights_equal": True}
for name, node in graph.nodes.items():
    out["nodes"][name] = type(node).__name__
layer = graph.metadata["layer"]
inputs = {b: a for a, b in graph.edges}
for name, node in graph.nodes.items():
    if type(node).__name__ != "Linear":
        continue
    if name not in ("q", "k"):  # rotary rows may be stored in another order than in the checkpoint
        out["weights_equal"] &= bool(np.array_equal(node.weight, tensor(f"model.layers.{layer}.{names[name]}.weight")))
    spikes = data.nodes[inputs[name]].observables["spikes"]
    assert set(np.unique(spikes.value)) <= {-1.0, 0.0, 1.0}
    grid = spikes.to_time_gridded(1.0)  # [tokens, steps, neurons]
    out["tokens"] = int(grid.n_samples)
    # what the graph does: the map at every step, then an integrator from 0
    v = np.einsum("tsi,oi->tso", grid.data, node.weight.astype(np.float64)).sum(axis=1)
    end = data.nodes[name + ".sum"].observables["v"].data[:, 0, :]
    out["worst"] = max(out["worst"], float(np.abs(v - end).max() / np.abs(end).max()))
    threshold = data.nodes[inputs[name]].observables["threshold"].data[:, 0, :]
    assert (threshold > 0).all() and (threshold == threshold[:, :1]).all()
    counts = grid.data.sum(axis=1)
    out.setdefault("mean_counts", {})[name] = float(np.abs(counts).mean())
json.dump(out, sys.stdout)
"""


def python_with_nir():
    """The interpreter of an environment that has the package; made at first use. Skips the test with the reason."""
    python = VENV / "bin" / "python"
    def has_it():
        return python.exists() and subprocess.run([python, "-c", "import nir"], capture_output=True).returncode == 0

    if not has_it():
        shutil.rmtree(VENV, ignore_errors=True)
        for command in ([sys.executable, "-m", "venv", VENV],
                        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "2", PACKAGE]):
            try:
                ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired:
                raise unittest.SkipTest(f"the Python package {PACKAGE} could not be fetched within 300 s")
            if ran.returncode:
                raise unittest.SkipTest(f"the Python package {PACKAGE} could not be installed: {ran.stderr.strip().splitlines()[-1:]}")
        if not has_it():
            raise unittest.SkipTest(f"{PACKAGE} is installed and cannot be imported")
    return python


class NirTest(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(tempfile.mkdtemp(prefix="mneme nir "))
        self.addCleanup(shutil.rmtree, self.out, ignore_errors=True)
        self.graph, self.data = self.out / "layer.nir", self.out / "layer.spikes.h5"

    def export(self, *options, model=LLAMA):
        return e2e.mneme("spikes", model, "-p", TEXT, "--nir", self.graph, "--quiet", *options)

    def refused(self, code, *options, model=LLAMA, says=""):
        ran = self.export(*options, model=model)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (code, "", 1), ran.stderr)
        self.assertIn(says, ran.stderr)
        self.assertFalse(self.graph.exists() or self.data.exists())

    def read_back(self):
        ran = subprocess.run([python_with_nir(), "-c", READ_BACK, self.graph, self.data, LLAMA / "model.safetensors"], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)

    def test_the_package_reads_a_layer(self):
        self.assertEqual(self.export("--layer", "1", "--raster-tokens", "5").returncode, 0)
        got = self.read_back()
        chains = {"q.k.v.in": ("q", "k", "v"), "o.in": ("o",), "gate.up.in": ("gate", "up"), "down.in": ("down",)}
        nodes, edges = {}, []
        for source, readers in chains.items():
            nodes[source] = "Input"
            for name in readers:
                nodes.update({name: "Linear", f"{name}.sum": "I", f"{name}.out": "Output"})
                edges += [[source, name], [name, f"{name}.sum"], [f"{name}.sum", f"{name}.out"]]
        self.assertEqual(got["nodes"], nodes)
        self.assertEqual(sorted(got["edges"]), sorted(edges))
        self.assertEqual(got["tokens"], 5)
        self.assertLess(got["worst"], 1e-6)  # the spikes, step by step through the graph, give the sums that mneme computes at once
        self.assertTrue(got["weights_equal"])
        self.assertEqual((got["metadata"]["layer"], got["metadata"]["code"], got["k"]), ("1", "ternary", ["3"]))
        for name, mean in got["mean_counts"].items():
            self.assertAlmostEqual(mean, 3, delta=0.6, msg=name)

    def test_some_projections(self):
        self.assertEqual(self.export("--layer", "0", "--projection", "v,down", "--k", "2").returncode, 0)
        got = self.read_back()
        self.assertEqual(sorted(n for n, kind in got["nodes"].items() if kind == "Linear"), ["down", "v"])
        self.assertLess(got["worst"], 1e-6)

    def test_what_cannot_be_expressed_is_named(self):
        self.refused(2, says="attention")  # no --layer
        self.refused(1, "--layer", "0", "--coding", "bidirectional", says="bidirectional")
        self.refused(1, "--layer", "0", "--coding", "binary", says="negative")
        self.refused(1, "--layer", "0", model=MODELS / "qwen2", says="bias of q")
        self.assertEqual(self.export("--layer", "0", "--projection", "o,down", model=MODELS / "qwen2").returncode, 0)

    def test_bad_names(self):
        self.refused(1, "--layer", "7", says="layers 0 to 1")
        self.refused(1, "--layer", "0", "--projection", "dwon", says="down")
        ran = e2e.mneme("spikes", LLAMA, "-p", TEXT, "--layer", "0", "--nir", self.out / "graph.h5", "--quiet")
        self.assertEqual(ran.returncode, 2, ran.stderr)
        ran = e2e.mneme("spikes", LLAMA, "-p", TEXT, "--layer", "0", "--nir", "/nowhere/graph.nir", "--quiet")
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran.stderr)

    def test_the_library_is_loaded_only_when_it_is_used(self):
        linked = subprocess.run(["ldd", e2e.MNEME], capture_output=True, text=True).stdout
        self.assertIn("libc.so", linked)
        self.assertNotIn("libhdf5", linked)


if __name__ == "__main__":
    e2e.main()
