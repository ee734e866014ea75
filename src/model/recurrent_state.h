// RecurrentStates: the states of every recurrence of one sequence, at its position and a little before.
//
// A pass reads the state at the position and writes the state after its tokens into another buffer; only when
// the pass is done does that one become current. So a cancelled pass has changed nothing, and no buffer is
// ever written once it is current: snapshots and forks share it without a copy.
//
// To undo up to max_rollback tokens exactly, checkpoints of the state are kept at multiples of an interval,
// and a log of what the tokens since the oldest of them wrote (v, k, decay, beta). A rollback replays the log
// from a checkpoint with the kernel of the pass, which gives the same bits. Buffers rotate: at decode a state
// becomes a checkpoint by being left where it is. Memory with the default reach of 16: 4 states and up to 48
// rows of log, whatever the position.
//
//     position        32      48   53            reach 16, interval 16
//     checkpoints     ^       ^
//     log             |-------|----|
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/huge_buffer.h"
#include "simd/recurrence.h"

namespace mneme {

/// Where each recurrence lies in a state buffer and in a row of the log. Made once per model and rollback
/// reach.
struct RecurrentLayout {
  struct Mixer {
    RecurrenceShape shape;
    int64_t state = 0;  // floats into a state buffer: [kv_heads, dim, columns]
    int64_t log = 0;    // floats into a row of the log: [kv_heads, update_values]
  };
  std::vector<Mixer> mixers;
  int64_t state_values = 0;  // floats of a state buffer
  int64_t log_values = 0;    // floats of a row
  int64_t reach = 0;         // tokens that can be undone
  int64_t interval = 1;      // positions between checkpoints

  /// A state costs as much as some tens of rows: checkpoints need not be denser than this.
  static constexpr int64_t kInterval = 64;
  explicit RecurrentLayout(int64_t max_rollback = 0)
      : reach(max_rollback), interval(std::clamp<int64_t>(max_rollback, 1, kInterval)) {}
  void add(const RecurrenceShape& shape);
  uint64_t state_bytes() const { return static_cast<uint64_t>(state_values) * sizeof(float); }
  /// Of a block of the log: the rows of an interval.
  uint64_t log_bytes() const { return static_cast<uint64_t>(log_values * interval) * sizeof(float); }
  /// Position of the oldest checkpoint that a sequence at `position` needs.
  int64_t oldest(int64_t position) const {
    return std::max<int64_t>(0, position - reach) / interval * interval;
  }
};

/// Copies share all buffers.
class RecurrentStates {
 public:
  using Block = std::shared_ptr<HugeBuffer>;
  /// A state or block of the log and its position: of the token after the state, or of the first row.
  using Placed = std::pair<int64_t, Block>;
  /// What snapshots hold. All empty for a model without recurrences.
  struct Contents {
    Block current;
    std::vector<Placed> checkpoints, log;  // in order
  };
  /// Tokens [begin, end) of the running pass lead from the state `in` to the state `out`.
  struct Segment {
    int64_t begin = 0, end = 0;  // positions
    const float* in = nullptr;   // [state_values]
    float* out = nullptr;
  };

  RecurrentStates() = default;
  /// States of zeros at position 0.
  explicit RecurrentStates(std::shared_ptr<const RecurrentLayout> layout);
  RecurrentStates(const RecurrentStates& other);
  RecurrentStates& operator=(const RecurrentStates& other);
  RecurrentStates(RecurrentStates&&) noexcept = default;
  RecurrentStates& operator=(RecurrentStates&&) noexcept = default;
  ~RecurrentStates() = default;

  bool empty() const { return layout_ == nullptr || layout_->mixers.empty(); }
  const RecurrentLayout& layout() const { return *layout_; }

  /// Makes room for a pass over [position, position + n). Throws Error(out_of_memory), nothing changed.
  void reserve(int64_t position, int64_t n);
  /// Of the reserved pass, in order.
  std::span<const Segment> segments() const { return segments_; }
  /// Where the row of a position of the reserved pass goes [log_values]; null if no rollback can need it.
  float* log_row(int64_t position) const;
  /// The reserved pass has written every state and row.
  void advance();
  /// Back to a position at or after the oldest checkpoint.
  void rollback(int64_t position);

  int64_t bytes() const;
  const Contents& contents() const { return held_; }
  /// Throws Error(corrupt) unless the contents are what a session at `position` keeps to go back to
  /// `low_water`.
  void restore(Contents contents, int64_t position, int64_t low_water);

 private:
  std::shared_ptr<const RecurrentLayout> layout_;
  Contents held_;
  std::vector<Placed> pending_, pending_log_;  // what the running pass writes
  std::vector<Segment> segments_;
  std::vector<Block> free_, free_log_;  // buffers for the next pass, this object's alone

  const Block& log_block(int64_t position) const;
  void reserve_log(int64_t begin, int64_t end);
  static void forget(std::vector<Placed>& from, size_t first, size_t count, std::vector<Block>& pool);
  static void release(Block block, std::vector<Block>& pool);
  static Block take(std::vector<Block>& pool, uint64_t bytes);
  void replay(int64_t from, int64_t to, const float* in, float* out) const;
};

}  // namespace mneme
