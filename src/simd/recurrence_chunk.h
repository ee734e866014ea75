// The chunk form of gated linear attention: the same function as run_recurrence() with Rule::gla, computed
// for up to 64 tokens at once as small matrix products.
//
//   y_t = (q_t P_t)^T S_0 + sum_{s <= t} A_ts v_s      A_ts = sum_c q_tc k_sc prod_{s < u <= t} decay_uc
//   S   = diag(P_end) S_0 + sum_s (k_s prod_{u > s} decay_u) v_s^T      P_t = prod_{u <= t} decay_u
//
// Stability: the textbook form divides by P_s, which overflows once gates close. Here a chunk is cut into
// sub-blocks of 16 tokens. Within one, the products between s and t are carried along pair by pair; between
// sub-blocks, keys are kept decayed to the end of the sub-block before and queries from there on, so that
// every factor is a product of decays, in [0, 1]. Nothing is ever divided and no exponential is taken.
//
// Where it pays: its multiply-adds per token and state element are group (state) + 1 (carry) + group * chunk
// / dim (inside), those of the recurrence 2 + group. bench/recurrence_bench.cpp times both; the engine runs
// the recurrence.
//
// Source: Yang et al. 2024 (arXiv 2312.06635), section 4.
#pragma once
#include <vector>

#include "simd/recurrence.h"

namespace mneme {

inline constexpr int64_t kChunkTokens = 64;
inline constexpr int64_t kSubBlockTokens = 16;

/// Scratch of one thread; grown on first use.
struct ChunkScratch {
  std::vector<float> queries, keys, decayed, scores, products;
};

/// All columns of a head's state [dim, columns()], in and out, for any number of tokens; y as in
/// run_recurrence().
void run_recurrence_chunked(const RecurrenceShape& shape, const RecurrenceTokens& tokens,
                            ChunkScratch& scratch, float* state);

}  // namespace mneme
