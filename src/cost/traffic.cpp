#include "cost/traffic.h"

#include <algorithm>

namespace mneme {
namespace {

// Keys and values of one position of one layer. Rows are padded to 16 values; int8 rows have an f32 scale.
uint64_t position_bytes(const MixerConfig& mixer, KvType kv) {
  if (!mixer.softmax()) return 0;
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

}  // namespace

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
  double bytes = 0;
  for (uint64_t done = 0; done < tokens;) {
    done += std::min(chunk, tokens - done);
    bytes += static_cast<double>(weights) + static_cast<double>(kv_bytes_read(config, kv, depth + done)) +
             2 * static_cast<double>(state_bytes(config));
  }
  return bytes / static_cast<double>(std::max<uint64_t>(tokens, 1)) +
         static_cast<double>(kv_bytes_written(config, kv));
}

}  // namespace mneme
