#include "train/flops.h"

#include <algorithm>
#include <chrono>

#include "model/tensor_names.h"
#include "train/tensor.h"

namespace mneme::train {
namespace {

/// Keys that a query sees, on the mean over a sequence.
double visible_keys(const MixerConfig& mixer, uint32_t sink_tokens, double length) {
  const double all = (length + 1) / 2 + sink_tokens;
  const auto capped = [&](double most) {  // the first `most` queries see fewer
    return most >= length ? all : most - most * (most - 1) / (2 * length) + sink_tokens;
  };
  if (mixer.type == MixerType::window) return std::min(all, capped(mixer.window) + mixer.sinks);
  if (mixer.type == MixerType::sparse)
    return std::min(all, capped(static_cast<double>(mixer.block) * mixer.top_k) + mixer.sinks);
  return all;
}

/// Forward operations of one token in one mixer besides its projections.
double mixing(const MixerConfig& mixer, uint32_t sink_tokens, double length) {
  const double heads = mixer.heads, dim = mixer.head_dim, kv_heads = mixer.kv_heads;
  if (mixer.softmax())  // scores and weighted values
    return 4 * heads * dim * visible_keys(mixer, sink_tokens, length);
  const double read = 2 * heads * dim * dim, write = 2 * kv_heads * dim * dim;
  return mixer.type == MixerType::delta ? read + 2 * write
                                        : read + write;  // delta: the state is read once more
}

}  // namespace

double flops_per_token(const ModelConfig& config, uint32_t length) {
  double multiplied = config.tied ? static_cast<double>(config.vocab) * config.d_model : 0.0;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    if (tensor.shape.size() != 2 || tensor.name == "token_embd.weight" || tensor.name == "sink_embd.weight")
      continue;
    multiplied += static_cast<double>(tensor.shape[0]) * static_cast<double>(tensor.shape[1]);
  }
  double out = 6 * multiplied;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      out += 3 * mixing(mixer, config.sink_tokens, length);
  return out;
}

double measured_flops(Precision precision) {
  const at::NoGradGuard no_graph;
  constexpr int64_t kSize = 1024;
  const auto type = precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
  const Tensor a = at::ones({kSize, kSize}, type), b = at::ones({kSize, kSize}, type);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double best = 1e9;
  at::mm(a, b);
  for (int i = 0; i < 3 || (i < 30 && Clock::now() - start < std::chrono::milliseconds(250)); ++i) {
    const auto begin = Clock::now();
    at::mm(a, b);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return 2.0 * kSize * kSize * kSize / best;
}

}  // namespace mneme::train
