#include "train/run/flops.h"

#include <algorithm>
#include <chrono>

#include "model/tensor_names.h"
#include "train/ops/products.h"

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
    double part = 1;  // of tokens that it multiplies
    const auto at = layer_tensor_name_of(tensor.name);
    if (at && expert_tensor_name_of(tensor.name)) {
      const FfnConfig& ffn = config.layers[at->layer].ffn;
      part = std::min(1.0, static_cast<double>(ffn.top_k) / ffn.experts);
    }
    multiplied += part * static_cast<double>(tensor.shape[0]) * static_cast<double>(tensor.shape[1]);
  }
  double out = 6 * multiplied;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      out += 3 * mixing(mixer, config.sink_tokens, length);
  return out;
}

double measured_flops() {
  const at::NoGradGuard no_graph;
  const auto rate = [](int64_t size, const auto& multiply) {
    multiply();
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      multiply();
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    const auto n = static_cast<double>(size);
    return 2 * n * n * n / best;
  };
  const Tensor single = at::ones({1024, 1024});
  const double of_floats = rate(1024, [&] { product(single, single, {}, false); });
  if (!has_bf16_kernels()) return of_floats;
  const Tensor half = at::ones({2048, 2048}, at::kBFloat16);
  return std::max(of_floats, rate(2048, [&] { at::mm(half, half); }));
}

}  // namespace mneme::train
