// The ranges that a ModelConfig may have. They lie far above any real model, and low enough that products of
// two of them fit in 64 bits and that a hostile file cannot ask for absurd amounts of memory.
#pragma once
#include <cstdint>

namespace mneme::config_limits {

inline constexpr uint32_t kMaxLayers = 4096;
inline constexpr uint32_t kMaxWidth = 1u << 20;    // d_model
inline constexpr uint32_t kMaxHidden = 1u << 24;   // of a feed-forward
inline constexpr uint32_t kMaxHeads = 4096;        // of a layer
inline constexpr uint32_t kMaxHeadDim = 4096;      // values in a head
inline constexpr uint32_t kMaxVocab = 1u << 24;    // tokens
inline constexpr uint32_t kMaxContext = 1u << 30;  // positions
inline constexpr double kMaxRopeBase = 1e15;
inline constexpr double kMaxRopeFactor = 1e6;
inline constexpr double kMaxScale = 1e6;     // any factor on embeddings, scores or logits, and the soft-caps
inline constexpr double kMinFiringK = 1e-3;  // smaller ones would round to 0 in float arithmetic
inline constexpr double kMaxFiringK = 64;    // spikes an input
inline constexpr double kMaxDeadZone = 1e4;  // thresholds
inline constexpr uint32_t kMaxNameBytes = 1024;
inline constexpr uint32_t kMaxTables = 64;  // of memory
inline constexpr uint32_t kMaxGateRank = 4096;
inline constexpr uint32_t kMaxSinkTokens = 4096;
inline constexpr uint32_t kMaxExperts = 4096;        // of a layer, and null experts as many
inline constexpr uint32_t kMaxAllExperts = 1 << 17;  // of all layers together
inline constexpr uint32_t kMaxSharedExperts = 64;    // of a layer
inline constexpr uint32_t kSparseStep = 64;          // block sizes of sparse attention are multiples of it

}  // namespace mneme::config_limits
