// Experts that several processes hold together (docs/expert-parallel.md).
//
// Process 0 leads: it has the token stream, all that is not an expert, and its share of the experts. The
// others hold their shares and nothing else, and serve them: rows of activations come, the outputs of the
// experts that the rows chose go back. So only tokens that leave travel, and what they compute far away is
// what would have been computed here: a row travels as the numbers that the experts read (floats, int8 codes
// and their scales, or spike counts and thresholds), and comes back as one row of floats an expert, added up
// by process 0 in the usual order. Logits are equal to the bit however many processes there are, if all use
// one instruction set.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/peers.h"

namespace mneme {

/// The experts of one process in a layer: [first, last).
struct ExpertRange {
  uint32_t first = 0, last = 0;
  bool holds(int32_t expert) const {
    return expert >= static_cast<int32_t>(first) && expert < static_cast<int32_t>(last);
  }
  uint32_t count() const { return last - first; }
};
/// Neighbouring experts stay together, because routers that choose among groups of them then reach fewer
/// processes.
ExpertRange experts_of(uint32_t rank, uint32_t processes, uint32_t experts);

/// How rows travel to the experts.
enum class RowCoding : uint8_t { floats, int8, spikes };
std::string_view to_string(RowCoding coding) noexcept;

/// What a row must hold so that its experts compute the same.
struct ExpertInputs {
  bool floats = false, int8 = false;
  size_t neurons = 0;  // kinds of spikes
};
/// The coding of a layer. `asked`: auto, float, int8 or spike; auto takes the smallest that changes no
/// result. Throws Error(invalid_argument) for a coding that would, with what is right.
RowCoding choose_coding(std::string_view asked, const ExpertInputs& inputs, size_t layer);

/// Spike counts that were sent, for their entropy.
class CountTally {
 public:
  void add(std::span<const int32_t> counts, uint64_t bytes);
  void add(const CountTally& other);
  uint64_t counts() const noexcept { return counts_; }
  uint64_t silent() const noexcept { return silent_; }
  uint64_t bytes() const noexcept { return bytes_; }  // that they took, coded
  /// Shannon's, of one count after the other, in bits for all of them.
  double entropy_bits() const;

 private:
  static constexpr size_t kSlots = 1024;  // counts beyond +-511 share the last
  std::vector<uint64_t> histogram_;
  uint64_t counts_ = 0, silent_ = 0, bytes_ = 0;
};

/// What left the leading process, and what came back.
struct ExpertTraffic {
  uint64_t tokens = 0;        // that passed the model
  uint64_t token_layers = 0;  // rows that passed layers with experts
  uint64_t row_messages = 0;  // rows that went to a process, once for each process
  uint64_t pairs = 0;         // experts that rows chose
  uint64_t pairs_away = 0;    // of those: in other processes
  uint64_t sent_bytes = 0;    // whole messages to other processes
  uint64_t row_bytes = 0;     // of these: the rows themselves
  uint64_t returned_bytes = 0;
  uint64_t float_bytes = 0, int8_bytes = 0;  // that the same rows would have taken
  double experts_share = 0;  // k/M: of the experts of a layer that a token may choose, mean of layers
  std::string coding;        // "spike", or "float, int8" where layers differ
  uint64_t counts = 0, silent = 0, count_bytes = 0;  // spike counts
  double entropy_bits = 0;                           // of all counts, layer by layer
};

class ExpertGroup {
 public:
  /// Bytes of an answer: far below the 2 GiB of a message of MPI, and enough that dividing costs nothing.
  static constexpr uint64_t kMostAnswer = uint64_t{256} << 20;

  /// `coding`: auto, float, int8, spike. Throws Error(invalid_argument) for another word. `most_answer`:
  /// bytes of the longest answer that is asked for, or of that for one row if it is longer.
  ExpertGroup(std::unique_ptr<Peers> peers, std::string coding, uint64_t most_answer = kMostAnswer);

  uint32_t rank() const noexcept { return peers_->rank(); }
  uint32_t size() const noexcept { return peers_->size(); }
  const std::string& coding() const noexcept { return coding_; }
  uint64_t most_answer() const noexcept { return most_answer_; }
  Peers& peers() noexcept { return *peers_; }

  // Thread-safe; called by the stages of the leading process.
  void count_tokens(bool first_layer, uint64_t rows, uint64_t pairs);
  struct Sent {
    size_t layer = 0;
    RowCoding coding = RowCoding::floats;
    uint64_t rows = 0, cols = 0, pairs = 0, bytes = 0, row_bytes = 0;
    CountTally counts;
  };
  void count_sent(const Sent& sent);
  void count_returned(uint64_t bytes);
  void set_share(double share) { share_ = share; }
  ExpertTraffic traffic() const;

 private:
  std::unique_ptr<Peers> peers_;
  std::string coding_;
  const uint64_t most_answer_;
  double share_ = 0;
  mutable std::mutex mutex_;
  ExpertTraffic traffic_;
  std::vector<CountTally> tallies_;  // [layer]
  bool used_[3] = {};                // codings
};

}  // namespace mneme
