// How large the inputs of a projection are, compared with the mean of their row, and what is lost when some
// of them become silent or whole counts: everything that k and dead zones of an adaptive-threshold neuron
// (simd/spike.h) are chosen from, gathered in one pass over a text.
//
// With m = mean|x| of a row the threshold is V = m / k. An input is silent below t = max(dead zone, 1/2) / k
// times m, and else off by at most V / 2, V^2 / 12 in the mean square. So inputs are sorted into bins of
// |x| / m, 32 an octave, and a bin holds, summed over rows,
//
//   count    inputs
//   energy   sum of w_i x_i^2 / D: the part of the output that they make, lost if they are silent
//   steps    sum of w_i m^2 / D: times 1 / (12 k^2) what rounding loses if they are not
//
// with w_i the squared norm of the input's column of weights and D = sum of w_i x_i^2 over the row: the
// squared norm of the output, if inputs do not know of each other. Sums are whole numbers (parts of 2^-32),
// so that the order of rows, and with it the number of threads, changes nothing.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "eval/spike_search.h"

namespace mneme {

class InputSizes {
 public:
  static constexpr int kPerOctave = 32, kOctaves = 24, kBins = kPerOctave * kOctaves;
  static constexpr double kLeast = 1.0 / 1024;  // where the second bin begins; the first is all below

  /// Adds a row x [n] of inputs with the squared column norms w [n] (>= 0). Returns false, and adds nothing,
  /// if an input is NaN or infinite.
  bool add(std::span<const float> x, std::span<const float> weights);
  void add(const InputSizes& other);

  uint64_t inputs() const;
  /// Part of the inputs below `ratio` times the mean of their row, to the nearest bin.
  double below(double ratio) const;
  /// The relative squared error of the output, and the rest of a candidate, for a neuron.
  NeuronCandidate candidate(double k, double dead_zone) const;

 private:
  struct Bin {
    uint64_t count = 0, energy = 0, steps = 0;
  };
  std::array<Bin, kBins> bins_{};
  uint64_t rows_ = 0;  // with an output that is not 0

  static int bin_of(float ratio);
  static double lower_edge(int bin);
};

/// Dead zones over k to try: ratios to the mean below which inputs are silent, 0 first, then 8 an octave.
std::vector<double> silent_ratios();

}  // namespace mneme
