#include "memory/engram_module.h"

#include <algorithm>

#include "core/checked.h"
#include "simd/elementwise.h"
#include "simd/engram.h"

namespace mneme {
namespace {

int64_t checked_positive(int64_t value, const char* what) {
  require(value > 0, ErrorCode::mismatch, "an Engram module with {} {}; there must be at least 1", value,
          what);
  return value;
}

void check_size(std::span<const float> tensor, int64_t rows, int64_t cols, const char* name) {
  const uint64_t expected = checked_mul(static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), name);
  require(tensor.size() == expected, ErrorCode::mismatch,
          "the tensor {} of an Engram module has {} values; its config says {} x {}", name, tensor.size(),
          rows, cols);
}

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

}  // namespace

EngramConvState::EngramConvState(const EngramConvConfig& config, int64_t channels, int64_t max_rollback)
    : config_(config), channels_(channels), max_rollback_(max_rollback) {
  require(config.kernel > 0 && config.dilation > 0 && channels > 0 && max_rollback >= 0,
          ErrorCode::invalid_argument,
          "a convolution of kernel {} and dilation {} over {} channels; each must be at least 1",
          config.kernel, config.dilation, channels);
  const uint64_t past = uint64_t{config.kernel - 1} * config.dilation;
  const uint64_t slots = checked_add(past + 1, static_cast<uint64_t>(max_rollback), "convolution state");
  const uint64_t values = checked_mul(slots, static_cast<uint64_t>(channels), "convolution state");
  checked_mul(values, sizeof(float), "convolution state");
  slots_ = static_cast<int64_t>(slots);
  rows_.resize(values);
}

void EngramConvState::taps(std::span<const float*> taps) const noexcept {
  const auto count = static_cast<int64_t>(taps.size());
  for (int64_t j = 0; j < count; ++j) {
    const int64_t position = position_ - (count - 1 - j) * config_.dilation;
    taps[static_cast<size_t>(j)] = position < 0 ? nullptr : rows_.data() + position % slots_ * channels_;
  }
}

void EngramConvState::rollback(int64_t tokens) {
  require(tokens >= 0 && tokens <= position_ && tokens <= max_rollback_, ErrorCode::invalid_argument,
          "cannot take back {} tokens at position {}; the convolution keeps {}", tokens, position_,
          max_rollback_);
  position_ -= tokens;
}

EngramModule::EngramModule(const EngramModuleConfig& config, const EngramModuleWeights& weights)
    : config_(config),
      d_(checked_positive(weights.d, "channels")),
      embedding_dim_(checked_positive(weights.embedding_dim, "row values")),
      branches_(checked_positive(weights.branches, "branches")),
      kv_proj_(weights.kv_proj) {
  const int64_t channels = branches_ * d_, outputs = channels + d_;
  check_size(weights.kv_proj, outputs, embedding_dim_, "kv_proj");
  check_size(weights.kv_bias, config.bias ? outputs : 0, 1, "kv_bias");
  check_size(weights.key_norm, channels, 1, "key_norm");
  check_size(weights.query_norm, channels, 1, "query_norm");
  check_size(weights.conv_norm, config.conv ? channels : 0, 1, "conv_norm");
  check_size(weights.conv, config.conv ? channels : 0, config.conv ? config.conv->kernel : 0, "conv");

  const auto offset = static_cast<float>(config.norm_offset);
  kv_bias_.assign(weights.kv_bias.begin(), weights.kv_bias.end());
  kv_bias_.resize(static_cast<size_t>(outputs));
  for (size_t i = 0; i < weights.key_norm.size(); ++i)
    gate_weight_.push_back((weights.key_norm[i] + offset) * (weights.query_norm[i] + offset));
  for (const float w : weights.conv_norm) conv_norm_.push_back(w + offset);
  conv_.resize(weights.conv.size());
  if (config.conv)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = 0; j < config.conv->kernel; ++j)
        conv_[static_cast<size_t>(j * channels + c)] =
            weights.conv[static_cast<size_t>(c * config.conv->kernel + j)];
}

EngramConvState EngramModule::state(int64_t max_rollback) const {
  return config_.conv ? EngramConvState(*config_.conv, branches_ * d_, max_rollback) : EngramConvState();
}

void EngramModule::forward(std::span<const float> e, std::span<float> h, EngramConvState& state) const {
  const int64_t channels = branches_ * d_;
  const auto tokens = static_cast<int64_t>(e.size()) / embedding_dim_;
  require(e.size() == static_cast<size_t>(tokens * embedding_dim_) &&
              h.size() == static_cast<size_t>(tokens * channels),
          ErrorCode::invalid_argument,
          "{} row values and {} residual values are not the same tokens of {} and {} values", e.size(),
          h.size(), embedding_dim_, channels);
  const EngramGate gate{config_.signed_sqrt, config_.sign0, config_.eps};
  std::vector<float> kv(kv_bias_.size()), u(static_cast<size_t>(channels));
  std::vector<const float*> taps(config_.conv ? config_.conv->kernel : 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const float* rows = e.data() + t * embedding_dim_;
    float* streams = h.data() + t * channels;
    for (size_t i = 0; i < kv.size(); ++i)
      kv[i] = static_cast<float>(
          dot(kv_proj_.data() + static_cast<int64_t>(i) * embedding_dim_, rows, embedding_dim_) +
          kv_bias_[i]);
    for (int64_t at = 0; at < channels; at += d_) {
      const float alpha = engram_gate(gate, kv.data() + at, streams + at, gate_weight_.data() + at, d_);
      engram_value(alpha, kv.data() + channels, d_, u.data() + at);
    }
    if (config_.conv) {
      const auto eps = static_cast<float>(config_.conv->eps);
      for (int64_t at = 0; at < channels; at += d_)
        rms_norm(u.data() + at, conv_norm_.data() + at, eps, d_, state.row() + at);
      state.taps(taps);
      engram_conv(taps, conv_.data(), u.data(), channels, u.data());
    }
    state.advance();
    add_to(streams, u.data(), channels);
  }
}

}  // namespace mneme
