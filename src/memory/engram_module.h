// One Engram module in its plain form: gathered rows in, residual streams changed. It is the whole algorithm
// after the lookup, for one sequence, any number M of branches, one token after the other, in f32:
//
//   k_m = W_k,m e    v = W_v e                                   e: [d_e], one key a branch, one shared value
//   u_m = sigmoid(f(<rms(k_m) wk_m, rms(h_m) wq_m> / sqrt(d))) v
//   y   = u + silu(conv(rms(u)))   or u                          conv over all M * d channels
//   h_m += y_m
//
// Models run the same kernels as stages of their plan, with packed projections and one branch; this form is
// what tests, tools and models with several residual streams use. tools/engram_module_reference.py is its
// reference in float64.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mneme/engram_config.h"

namespace mneme {

/// What the convolution remembers of one sequence: the normed values of the last (kernel - 1) * dilation
/// positions, and of `max_rollback` more so that tokens can be taken back. A copy is a fork.
class EngramConvState {
 public:
  /// For a module without a convolution: remembers only the position.
  EngramConvState() = default;
  /// Throws Error(invalid_argument) for a kernel or dilation of 0, Error(corrupt) if the size overflows.
  EngramConvState(const EngramConvConfig& config, int64_t channels, int64_t max_rollback = 0);

  int64_t position() const noexcept { return position_; }
  /// Where the normed values [channels] of the token at position() go.
  float* row() noexcept { return rows_.data() + position_ % slots_ * channels_; }
  /// The rows that the convolution of the token at position() reads, oldest first, its own last; null before
  /// the start. taps: [kernel].
  void taps(std::span<const float*> taps) const noexcept;
  /// The next token.
  void advance() noexcept { ++position_; }
  /// Takes back `tokens` tokens. Throws Error(invalid_argument) beyond max_rollback or the start.
  void rollback(int64_t tokens);
  uint64_t bytes() const noexcept { return rows_.size() * sizeof(float); }

 private:
  EngramConvConfig config_;
  int64_t channels_ = 0, slots_ = 1, max_rollback_ = INT64_MAX, position_ = 0;
  std::vector<float> rows_;  // [slots, channels], position p in slot p % slots
};

/// A module's tensors, row-major f32; `branches` is M. Not owned.
struct EngramModuleWeights {
  int64_t d = 0, embedding_dim = 0, branches = 1;
  std::span<const float> kv_proj;     // [(M + 1) * d, d_e]: the keys of the branches, then the value
  std::span<const float> kv_bias;     // [(M + 1) * d], or empty if the config has no bias
  std::span<const float> key_norm;    // [M * d]
  std::span<const float> query_norm;  // [M * d]
  std::span<const float> conv_norm;   // [M * d], or empty without a convolution
  std::span<const float> conv;        // [M * d, kernel]: the last tap is the newest token; or empty
};

/// Immutable and thread-safe.
class EngramModule {
 public:
  /// The projection is kept by reference, the small tensors are copied. Throws Error(mismatch) for a tensor
  /// of another size than the config and the dimensions say.
  EngramModule(const EngramModuleConfig& config, const EngramModuleWeights& weights);

  /// A state at position 0 that fits this module.
  EngramConvState state(int64_t max_rollback = 0) const;

  /// Adds the module's output to h [tokens, M, d]; e: [tokens, d_e], the rows of each token. `state` belongs
  /// to the sequence. A sequence gives the same bits however it is cut into calls. Throws
  /// Error(invalid_argument) if e and h are not of equally many tokens.
  void forward(std::span<const float> e, std::span<float> h, EngramConvState& state) const;

 private:
  EngramModuleConfig config_;
  int64_t d_, embedding_dim_, branches_;
  std::span<const float> kv_proj_;
  std::vector<float> kv_bias_;      // [(M + 1) * d], zeros without a bias
  std::vector<float> gate_weight_;  // [M * d]: (key norm + offset) * (query norm + offset)
  std::vector<float> conv_norm_;    // [M * d], offset added
  std::vector<float> conv_;         // [kernel, M * d]
};

}  // namespace mneme
