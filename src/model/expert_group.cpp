#include "model/expert_group.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/fail.h"
#include "simd/packed_matrix.h"

namespace mneme {

ExpertRange experts_of(uint32_t rank, uint32_t processes, uint32_t experts) {
  const auto border = [&](uint64_t r) { return static_cast<uint32_t>(r * experts / processes); };
  return {border(rank), border(uint64_t{rank} + 1)};
}

std::string_view to_string(RowCoding coding) noexcept {
  switch (coding) {
    case RowCoding::floats:
      return "float";
    case RowCoding::int8:
      return "int8";
    case RowCoding::spikes:
      return "spike";
  }
  return "float";
}

RowCoding choose_coding(std::string_view asked, const ExpertInputs& inputs, size_t layer) {
  const int kinds = (inputs.floats ? 1 : 0) + (inputs.int8 ? 1 : 0) + (inputs.neurons > 0 ? 1 : 0);
  const RowCoding best = kinds != 1 || inputs.floats ? RowCoding::floats
                         : inputs.int8               ? RowCoding::int8
                                                     : RowCoding::spikes;
  if (asked == "auto" || asked == to_string(best)) return best;
  if (asked == "float") return RowCoding::floats;
  fail(ErrorCode::invalid_argument,
       "--expert-messages {}: the experts of layer {} read {}, so that rounding rows on the way would change "
       "the text; "
       "use --expert-messages {}, or --activation {}",
       asked, layer,
       kinds > 1       ? "numbers of several kinds"
       : inputs.floats ? "floats"
       : inputs.int8   ? "int8 codes"
                       : "spikes",
       to_string(best), asked);
}

void CountTally::add(std::span<const int32_t> counts, uint64_t bytes) {
  histogram_.resize(kSlots);
  for (const int32_t count : counts) {
    const auto magnitude = static_cast<size_t>(std::abs(int64_t{count}));
    ++histogram_[std::min(kSlots - 1, 2 * magnitude + (count < 0 ? 1 : 0))];
  }
  counts_ += counts.size();
  bytes_ += bytes;
  silent_ += static_cast<uint64_t>(std::count(counts.begin(), counts.end(), 0));
}

void CountTally::add(const CountTally& other) {
  histogram_.resize(kSlots);
  for (size_t i = 0; i < other.histogram_.size(); ++i) histogram_[i] += other.histogram_[i];
  counts_ += other.counts_;
  silent_ += other.silent_;
  bytes_ += other.bytes_;
}

double CountTally::entropy_bits() const {
  double bits = 0;
  for (const uint64_t n : histogram_)
    if (n > 0)
      bits -= static_cast<double>(n) * std::log2(static_cast<double>(n) / static_cast<double>(counts_));
  return bits;
}

ExpertGroup::ExpertGroup(std::unique_ptr<Peers> peers, std::string coding, uint64_t most_answer)
    : peers_(std::move(peers)), coding_(std::move(coding)), most_answer_(most_answer) {
  require(coding_ == "auto" || coding_ == "float" || coding_ == "int8" || coding_ == "spike",
          ErrorCode::invalid_argument, "--expert-messages \"{}\"; it is auto, float, int8 or spike", coding_);
}

void ExpertGroup::count_tokens(bool first_layer, uint64_t rows, uint64_t pairs) {
  const std::lock_guard lock(mutex_);
  if (first_layer) traffic_.tokens += rows;
  traffic_.token_layers += rows;
  traffic_.pairs += pairs;
}

void ExpertGroup::count_sent(const Sent& sent) {
  const std::lock_guard lock(mutex_);
  traffic_.row_messages += sent.rows;
  traffic_.pairs_away += sent.pairs;
  traffic_.sent_bytes += sent.bytes;
  traffic_.row_bytes += sent.row_bytes;
  traffic_.float_bytes += sent.rows * sent.cols * sizeof(float);
  traffic_.int8_bytes += sent.rows * (sent.cols + sent.cols / kBlock * sizeof(float));
  used_[static_cast<size_t>(sent.coding)] = true;
  if (sent.counts.counts() == 0) return;
  if (tallies_.size() <= sent.layer) tallies_.resize(sent.layer + 1);
  tallies_[sent.layer].add(sent.counts);
}

void ExpertGroup::count_returned(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  traffic_.returned_bytes += bytes;
}

ExpertTraffic ExpertGroup::traffic() const {
  const std::lock_guard lock(mutex_);
  ExpertTraffic out = traffic_;
  out.experts_share = share_;
  for (const RowCoding coding : {RowCoding::floats, RowCoding::int8, RowCoding::spikes})
    if (used_[static_cast<size_t>(coding)])
      out.coding += (out.coding.empty() ? "" : ", ") + std::string(to_string(coding));
  for (const CountTally& tally : tallies_) {
    out.counts += tally.counts();
    out.silent += tally.silent();
    out.count_bytes += tally.bytes();
    out.entropy_bits += tally.entropy_bits();
  }
  return out;
}

}  // namespace mneme
