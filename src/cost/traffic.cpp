#include "cost/traffic.h"

#include <algorithm>

namespace mneme {
namespace {

// Keys and values of one position of one layer. Rows are padded to 16 values; int8 rows have an f32 scale.
uint64_t position_bytes(const MixerConfig& mixer, KvType kv) {
  if (!mixer.softmax()) return 0;
  kv = kv_type_of(mixer, kv);
  const uint64_t row = (uint64_t{mixer.head_dim} + 15) / 16 * 16;
  const uint64_t value = kv == KvType::f32 ? 4 : kv == KvType::f16 ? 2 : 1;
  return uint64_t{mixer.kv_heads} * 2 * (row * value + (kv == KvType::int8 ? 4 : 0));
}

/// Keys that the cache keeps for later queries at most, and those that a query at decode sees.
uint64_t most_kept(const MixerConfig& mixer) {
  if (mixer.type != MixerType::window) return UINT64_MAX;
  const uint64_t edge = mixer.edge == WindowEdge::plus_one ? 1 : 0;
  return uint64_t{mixer.window} + edge + mixer.sinks;
}
uint64_t most_seen(const MixerConfig& mixer) {
  return mixer.type == MixerType::sparse ? uint64_t{mixer.block} * mixer.top_k + mixer.sinks
                                         : most_kept(mixer);
}

/// Bytes of the mean keys that a query of a sparse mixer is compared with: f32, one for every complete block.
uint64_t mean_key_bytes(const MixerConfig& mixer, uint64_t context) {
  if (mixer.type != MixerType::sparse) return 0;
  return context / mixer.block * mixer.kv_heads * ((uint64_t{mixer.head_dim} + 15) / 16 * 16) * sizeof(float);
}

/// Bytes of the cache and of mean keys for a context of which each mixer counts `most` positions at most.
uint64_t kv_bytes(const ModelConfig& config, KvType kv, uint64_t context,
                  uint64_t (*most)(const MixerConfig&)) {
  uint64_t bytes = 0;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      bytes += position_bytes(mixer, kv) * (config.sink_tokens + std::min(context, most(mixer))) +
               mean_key_bytes(mixer, context);
  return bytes;
}

/// Sum of floor((start + i step) / block) over i = 1 ... count, by Euclid's scheme: what is left after whole
/// multiples is counted along the other axis. Below 2^62 for the ranges of contexts.
uint64_t sum_of_quotients(uint64_t count, uint64_t start, uint64_t step, uint64_t block) {
  if (count == 0) return 0;
  const uint64_t pairs = count % 2 == 0 ? count / 2 * (count + 1) : (count + 1) / 2 * count;
  uint64_t sum = start / block * count + step / block * pairs;
  start %= block;
  step %= block;
  const uint64_t top = (start + step * count) / block;
  if (top == 0) return sum;
  // Quotients reach h = 1 ... top; all but floor((h block - start - 1) / step) of the i reach h.
  const uint64_t first = block - start - 1;
  return sum + top * count - first / step - sum_of_quotients(top - 1, first, block, step);
}

}  // namespace

uint64_t positions_seen(const MixerConfig& mixer, uint64_t context) {
  return mixer.softmax() ? std::min(context, most_seen(mixer)) : 0;
}

uint64_t kv_bytes_written(const ModelConfig& config, KvType kv) {
  uint64_t bytes = 0;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches()) bytes += position_bytes(mixer, kv);
  return bytes;
}

uint64_t state_bytes(const ModelConfig& config) {
  uint64_t bytes = 0;
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      if (mixer.recurrent())
        bytes += uint64_t{mixer.kv_heads} * mixer.head_dim * mixer.head_dim * sizeof(float);
  return bytes;
}

uint64_t kv_bytes_read(const ModelConfig& config, KvType kv, uint64_t context) {
  return kv_bytes(config, kv, context, most_seen);
}

uint64_t kv_bytes_held(const ModelConfig& config, KvType kv, uint64_t context) {
  return kv_bytes(config, kv, context, most_kept);
}

double decode_bytes_per_token(const ModelConfig& config, KvType kv, uint64_t weights, uint64_t depth,
                              uint64_t tokens) {
  double cache = 0;
  for (uint64_t i = 0; i < tokens; ++i)
    cache += static_cast<double>(kv_bytes_read(config, kv, depth + i + 1));
  return static_cast<double>(weights) + static_cast<double>(kv_bytes_written(config, kv)) +
         2 * static_cast<double>(state_bytes(config)) +
         cache / static_cast<double>(std::max<uint64_t>(tokens, 1));
}

double prefill_bytes_per_token(const ModelConfig& config, KvType kv, uint64_t weights, uint64_t depth,
                               uint64_t tokens, uint64_t chunk) {
  const uint64_t n = std::max<uint64_t>(tokens, 1), full = (n - 1) / chunk;  // passes before the last
  double bytes = static_cast<double>(full + 1) *
                     (static_cast<double>(weights) + 2 * static_cast<double>(state_bytes(config))) +
                 static_cast<double>(kv_bytes_read(config, kv, depth + n));
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches()) {
      // The positions that these passes see, depth + i chunk each: of the first ones all, of others `most`.
      const uint64_t most = most_seen(mixer);
      const uint64_t below = most < depth + chunk ? 0 : std::min(full, (most - depth) / chunk);
      const uint64_t pairs = below % 2 == 0 ? below / 2 * (below + 1) : (below + 1) / 2 * below;
      const uint64_t seen = full * config.sink_tokens + below * depth + pairs * chunk +
                            (below == full ? 0 : (full - below) * most);
      bytes += static_cast<double>(position_bytes(mixer, kv)) * static_cast<double>(seen);
      if (mixer.type == MixerType::sparse)
        bytes += static_cast<double>(mean_key_bytes(mixer, mixer.block)) *
                 static_cast<double>(sum_of_quotients(full, depth, chunk, mixer.block));
    }
  return bytes / static_cast<double>(n) + static_cast<double>(kv_bytes_written(config, kv));
}

}  // namespace mneme
