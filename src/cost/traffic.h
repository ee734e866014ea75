// Bytes that decoding moves through memory: what the time of a token is compared with.
#pragma once
#include <cstdint>

#include "mneme/model_config.h"
#include "mneme/session.h"

namespace mneme {

/// What the cache of one mixer holds when the session asks for `kv`: some checkpoints round their keys and
/// values to int8 whatever a session asks for.
constexpr KvType kv_type_of(const MixerConfig& mixer, KvType kv) noexcept {
  return mixer.kv_int8 ? KvType::int8 : kv;
}
/// Bytes of keys and values, scales included, that one token adds to the cache over all layers.
uint64_t kv_bytes_written(const ModelConfig& config, KvType kv);
/// Bytes of keys and values that the cache holds after `context` positions: of layers with a window no more
/// than it and its sinks (the cache keeps up to a page and the rollback reach beside them), sink tokens
/// included.
uint64_t kv_bytes_held(const ModelConfig& config, KvType kv, uint64_t context);
/// Positions of its cache that the attention of one token reads when it sees `context`, itself included,
/// without the model's sink tokens: windows no more than themselves and their sinks, sparse mixers no more
/// than their blocks. 0 for a recurrence.
uint64_t positions_seen(const MixerConfig& mixer, uint64_t context);
/// Bytes of the states of the recurrences (f32), read and written by every token or pass.
uint64_t state_bytes(const ModelConfig& config);
/// Bytes of keys and values that the attention of one token reads when it sees `context` positions, itself
/// included; layers with a window see no more than it and its sinks, sparse ones no more than their blocks,
/// for which they read the mean keys of all. (Query heads of a kv head that choose apart may read up to as
/// many times the blocks.)
uint64_t kv_bytes_read(const ModelConfig& config, KvType kv, uint64_t context);
/// Mean bytes a token over `tokens` tokens decoded one after the other from `depth` on: every weight once,
/// the KV cache and the states read and written. `weights`: Model::bytes_per_token().
double decode_bytes_per_token(const ModelConfig& config, KvType kv, uint64_t weights, uint64_t depth,
                              uint64_t tokens);
/// The same for a prompt of `tokens` tokens read in passes of `chunk`: every weight once a pass, the cache
/// and the states once a pass.
double prefill_bytes_per_token(const ModelConfig& config, KvType kv, uint64_t weights, uint64_t depth,
                               uint64_t tokens, uint64_t chunk);

}  // namespace mneme
