#include "model/key_summaries.h"

#include <algorithm>
#include <new>

#include "core/fail.h"

namespace mneme {

KeySummaries::KeySummaries(const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) mixers_.push_back({shape, {}, {}});
}

void KeySummaries::reserve(int64_t position) {
  for (Mixer& mixer : mixers_) {
    if (mixer.shape.block == 0) continue;
    const auto first = static_cast<size_t>(positions_ / mixer.shape.block / kTileBlocks);
    const auto count = static_cast<size_t>((position / mixer.shape.block + kTileBlocks - 1) / kTileBlocks);
    const auto values = static_cast<size_t>(tile_values(mixer.shape.geometry));
    try {
      for (size_t i = first; i < count; ++i) {
        if (i < mixer.tiles.size() && mixer.tiles[i].use_count() == 1) continue;
        Tile tile = std::make_shared<float[]>(values);
        if (i < mixer.tiles.size()) {
          std::copy_n(mixer.tiles[i].get(), values, tile.get());
          mixer.addresses[i] = tile.get();
          mixer.tiles[i] = std::move(tile);
        } else {
          mixer.addresses.push_back(tile.get());
          mixer.tiles.push_back(std::move(tile));
        }
      }
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::out_of_memory, "no memory for the mean keys of {} blocks; shorten the context",
           position / mixer.shape.block);
    }
  }
}

void KeySummaries::clear() {
  positions_ = 0;
  for (Mixer& mixer : mixers_) {
    mixer.tiles.clear();
    mixer.addresses.clear();
  }
}

int64_t KeySummaries::bytes() const {
  int64_t sum = 0;
  for (const Mixer& mixer : mixers_)
    sum += static_cast<int64_t>(mixer.tiles.size()) * tile_values(mixer.shape.geometry) *
           static_cast<int64_t>(sizeof(float));
  return sum;
}

}  // namespace mneme
