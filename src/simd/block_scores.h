// Which blocks of keys a query should see: block-sparse attention (MoBA, arXiv 2502.13189, section 2.2)
// scores a block by the query's product with the mean of the block's keys and keeps the best few.
//
// Means of 16 blocks lie in one summary tile. For each kv head, one after the other:
//   [dim][block % 16] f32
// so that a vector is 16 blocks of one dimension and a score needs no sum across lanes (as keys in a cache
// page, simd/attention.h). Lanes of blocks that have no mean yet are zero or old: callers ask for complete
// blocks only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/attention.h"

namespace mneme {

inline constexpr int64_t kTileBlocks = 16;

/// Floats of one kv head in a summary tile.
inline int64_t tile_head_values(const KvGeometry& geometry) {
  return geometry.padded_dim() * kTileBlocks;
}
/// Floats of a summary tile.
inline int64_t tile_values(const KvGeometry& geometry) {
  return geometry.kv_heads * tile_head_values(geometry);
}

/// Keys [begin, begin + keys) of one kv head, as AttentionArgs names them. begin and keys: multiples of 64.
struct KeyRange {
  KvGeometry geometry;
  int64_t kv_head = 0;
  const std::byte* const* pages = nullptr;
  int64_t page_offset = 0;
  int64_t begin = 0;
  int64_t keys = 0;
};

/// The mean of those keys, as the cache rounds them, into one lane of that head's part of a tile. The order
/// of the sum is fixed by `begin` and `keys` alone. Scratch grows to 16 floats a dimension.
void block_mean(const KeyRange& range, std::vector<float>& scratch, float* tile_head, int64_t lane);
/// The same in plain loops and double precision, mean [head_dim]: the specification.
void block_mean_plain(const KeyRange& range, double* mean);

/// scores[i * stride + b] = q[i] . mean of block b, for blocks [0, blocks) of one kv head and queries
/// [queries, padded_dim]; `tiles`: tile t holds blocks [16 t, 16 t + 16), the head's part `head_offset`
/// floats into it. stride is at least `blocks` rounded up to 16, and lanes past `blocks` are written too. A
/// score depends on its query and its mean only.
void block_scores(const float* q, int64_t queries, int64_t padded_dim, const float* const* tiles,
                  int64_t head_offset, int64_t blocks, float* scores, int64_t stride);
/// The same in plain loops and double precision for one query, scores [blocks]: the specification.
void block_scores_plain(const float* q, int64_t padded_dim, const float* const* tiles, int64_t head_offset,
                        int64_t blocks, double* scores);

/// Appends the k blocks of the highest scores to `out`, ascending; all of them if k >= blocks. Of equal
/// scores the lower block wins; the order is total, NaNs included (above infinity if their sign bit is 0,
/// else below all). blocks < 2^32.
void top_blocks(const float* scores, int64_t blocks, int64_t k, std::vector<uint64_t>& scratch,
                std::vector<uint32_t>& out);

}  // namespace mneme
