// The mean key of every complete block of a sequence, for mixers of type sparse: what a query is compared
// with to choose the blocks it sees.
//
// A mean is a function of the keys in the cache and is computed from there, so it is neither saved nor part
// of a snapshot: a restored sequence has none, and its next pass computes what is missing. Tiles
// (simd/block_scores.h) are shared between forks of a sequence and copied before one of them writes.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "simd/block_scores.h"

namespace mneme {

class KeySummaries {
 public:
  /// What a mixer keeps; `block` (keys) is 0 where it keeps nothing.
  struct Shape {
    KvGeometry geometry;
    int64_t block = 0;
  };
  explicit KeySummaries(const std::vector<Shape>& shapes);

  /// Blocks whose means are there: the first ones of the sequence.
  int64_t valid(size_t mixer) const { return positions_ / mixers_[mixer].shape.block; }
  /// Tiles of a mixer, for block_scores().
  const float* const* tiles(size_t mixer) const { return mixers_[mixer].addresses.data(); }
  /// Where the mean of a block goes: [padded_dim] values, kTileBlocks apart. Different blocks and heads may
  /// be written by different threads.
  float* tile_head(size_t mixer, int64_t block, int64_t kv_head) const {
    const Mixer& m = mixers_[mixer];
    return m.tiles[static_cast<size_t>(block / kTileBlocks)].get() +
           kv_head * tile_head_values(m.shape.geometry);
  }

  /// Before a pass that will end at `position`: tiles for the blocks that are missing up to there exist and
  /// belong to this sequence alone. Throws Error(out_of_memory).
  void reserve(int64_t position);
  /// After a pass that stored the missing means.
  void advance(int64_t position) { positions_ = position; }
  /// Blocks that are no longer complete at `position` are forgotten.
  void rollback(int64_t position) { positions_ = position < positions_ ? position : positions_; }
  /// Forgets everything: the keys are others now.
  void clear();
  int64_t bytes() const;

 private:
  using Tile = std::shared_ptr<float[]>;
  struct Mixer {
    Shape shape;
    std::vector<Tile> tiles;
    std::vector<const float*> addresses;  // of the tiles
  };
  std::vector<Mixer> mixers_;
  int64_t positions_ = 0;  // means of all blocks that are complete here are there
};

}  // namespace mneme
