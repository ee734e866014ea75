// Projections and their spikes for neuromorphic tools: the Neuromorphic Intermediate Representation (Pedersen
// et al., Nature Communications 2024, doi 10.1038/s41467-024-52259-9), an HDF5 file of nodes and edges.
//
// NIR has linear maps, integrators and neurons with fixed thresholds. Of a spiking projection that expresses
// the synapses and the sum over time:
//
//   Input [inputs] -> Linear W [outputs, inputs] -> I (an integrator, r = 1) -> Output [outputs]
//
// Fed with the spikes of a counting code (binary or ternary), the integrator holds W s after the last step.
// What it cannot express stays outside, and nir_export() refuses it by name:
//
// - the neuron: its threshold follows every token, and its reset subtracts; NIR's neurons have one threshold
//   for all time and reset to a fixed potential. So spikes are the graph's input, recorded from the model;
// - bitwise codes: no node weighs a spike by its step;
// - a bias: Affine adds it at every step, a projection once a token and after the scale V_th;
// - what lies between projections (norms, rotary angles, softmax attention, the product of gate and up): so
//   the graph of a layer is a chain for each projection, and there is no graph of several layers.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "eval/spike_report.h"

namespace mneme {

struct NirExport {
  std::string graph;  // content of the .nir file: nir.read()
  std::string
      spikes;  // content of a file of NIRGraphData for the graph's inputs and integrators: nir.read_data()
};

/// The projections of `records`, all of one layer, as they are in `model`. In the data file, samples are
/// tokens, time is counted in steps; each input has its `spikes` and its `threshold` V_th, each integrator
/// the potential `v` that it ends with, in thresholds. Throws Error: unsupported (what NIR cannot express,
/// see above), invalid_argument (no records, or a negative count in a binary code), not_found (no HDF5
/// library).
NirExport nir_export(const Model& model, std::span<const SpikeRecord> records, SpikeCode code);

}  // namespace mneme
