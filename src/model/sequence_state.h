// SequenceState: what one sequence has written so far, for every layer: its key/value caches, the states of
// its recurrences, and what the convolutions of memory modules read of earlier tokens. (What memories hash is
// the tokens themselves, which the session has.)
//
// The cache grows in blocks of 256 positions. A block holds those positions for every layer of a group
// (layers that forget at the same rate), so that one allocation of a few MB serves all of them on huge pages.
// Blocks are shared between a session, its snapshots and its forks, and copied when one of them is about to
// write into a block that another still sees: a snapshot costs no copy. A step costs the same at every
// position: it touches the blocks that it needs and no list of all of them. Memory of a model whose layers
// are windows and recurrences stays constant, but for two pointers a block of 256 positions.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "core/huge_buffer.h"
#include "mneme/model_config.h"
#include "model/key_summaries.h"
#include "model/recurrent_state.h"
#include "simd/attention.h"

namespace mneme {

/// Where each mixer's page lies in the blocks of its group. Made once per model and KV format.
struct CacheLayout {
  struct Layer {
    KvGeometry geometry;
    size_t group = 0;
    int64_t offset = 0;   // bytes into a block
    int64_t summary = 0;  // sparse: keys in a block that has a mean key; else 0
  };
  struct Group {
    int64_t block_bytes = 0;
    int64_t window = 0;  // keys a query sees; 0 = all
    int64_t sinks = 0;
  };
  /// The convolution of a memory module: rows of the last `slots` positions, of which a token reads those
  /// within its reach; the rest is for rollbacks.
  struct Conv {
    int64_t channels = 0;
    int64_t slots = 0;
    uint64_t values() const { return static_cast<uint64_t>(channels) * static_cast<uint64_t>(slots); }
  };
  std::vector<Layer> layers;  // [mixer index]; recurrences have no page
  std::vector<Group> groups;
  std::vector<Conv> convs;
  RecurrentLayout recurrent;
  int64_t max_rollback = 16;
  int64_t sink_tokens = 0;  // positions before those of a session

  /// True if only the last max_rollback tokens can be undone.
  bool forgets() const;
};

/// The states of a gla or delta mixer.
RecurrenceShape recurrence_shape(const MixerConfig& mixer);

CacheLayout make_cache_layout(const ModelConfig& config, KvFormat format, int64_t max_rollback);

class SequenceState {
 public:
  using Block = std::shared_ptr<HugeBuffer>;
  explicit SequenceState(std::shared_ptr<const CacheLayout> layout);

  const CacheLayout& layout() const { return *layout_; }
  int64_t position() const { return position_; }

  /// Makes room for n more positions: blocks exist and belong to this state alone. Throws
  /// Error(out_of_memory).
  void reserve(int64_t n);
  /// After a pass wrote n positions: moves on and gives back blocks that no allowed rollback can need.
  void advance(int64_t n);
  /// Exact; throws Error(limit) that names the reach.
  void rollback(int64_t n);

  /// Block pointers of a layer's group, for AttentionArgs::pages.
  const std::byte* const* pages(size_t layer) const { return bases_[layout_->layers[layer].group].data(); }
  std::byte* page(size_t layer, int64_t position) const;
  int64_t bytes() const;

  /// The row of a convolution [channels] at a position; valid for the last `slots` positions that were
  /// written.
  float* conv_row(size_t conv, int64_t position) {
    const CacheLayout::Conv& at = layout_->convs[conv];
    return convs_[conv].data() + position % at.slots * at.channels;
  }
  const std::vector<std::vector<float>>& convs() const { return convs_; }

  RecurrentStates& recurrent() { return recurrent_; }
  const RecurrentStates& recurrent() const { return recurrent_; }

  /// Mean keys of the blocks of sparse mixers.
  const KeySummaries& summaries() const { return summaries_; }
  /// To be called when keys were written other than by a pass: the next one computes all mean keys again.
  void forget_summaries() { summaries_.clear(); }

  /// The blocks of each group; null where already given back.
  const std::vector<std::vector<Block>>& blocks() const { return blocks_; }
  /// Rebuilds a saved state. `low_water`: first position from which a rollback would be exact. Throws
  /// Error(corrupt), nothing changed, if the recurrent states do not fit.
  void restore(int64_t position, int64_t low_water, std::vector<std::vector<Block>> blocks,
               std::vector<std::vector<float>> convs, RecurrentStates::Contents recurrent);
  int64_t low_water() const { return low_water_; }

 private:
  std::shared_ptr<const CacheLayout> layout_;
  int64_t position_ = 0;
  int64_t low_water_ = 0;  // positions below this may have lost keys that a session there would see
  std::vector<std::vector<Block>> blocks_;            // [group][position / 256]
  std::vector<std::vector<const std::byte*>> bases_;  // the same as addresses
  std::vector<int64_t> released_;          // [group] blocks below this are given back, but for those of sinks
  std::vector<std::vector<float>> convs_;  // [conv][slots, channels], position p in slot p % slots
  RecurrentStates recurrent_;
  KeySummaries summaries_;
  void put(size_t group, size_t index, Block block);
  static int64_t sink_blocks(const CacheLayout::Group& group);
};

}  // namespace mneme
