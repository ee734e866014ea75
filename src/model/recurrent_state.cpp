#include "model/recurrent_state.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/fail.h"

namespace mneme {
namespace {

// Buffers kept for the next pass. A decode step takes one.
constexpr size_t kSpare = 1;

const float* floats(const RecurrentStates::Block& block) {
  return reinterpret_cast<const float*>(block->data());
}
float* writable(const RecurrentStates::Block& block) {
  return reinterpret_cast<float*>(block->data());
}

}  // namespace

void RecurrentLayout::add(const RecurrenceShape& shape) {
  mixers.push_back({shape, state_values, log_values});
  state_values += shape.state_values();
  log_values += shape.kv_heads * shape.update_values();
}

RecurrentStates::RecurrentStates(std::shared_ptr<const RecurrentLayout> layout) : layout_(std::move(layout)) {
  if (empty()) return;
  held_.current = std::make_shared<HugeBuffer>(layout_->state_bytes());
  if (layout_->reach > 0) held_.checkpoints.emplace_back(0, held_.current);
}

RecurrentStates::RecurrentStates(const RecurrentStates& other) : layout_(other.layout_), held_(other.held_) {}

RecurrentStates& RecurrentStates::operator=(const RecurrentStates& other) {
  if (this == &other) return *this;
  *this = RecurrentStates(other);
  return *this;
}

// A buffer that nobody else sees may be written again.
void RecurrentStates::release(Block block, std::vector<Block>& pool) {
  if (block && block.use_count() == 1 && pool.size() < kSpare) pool.push_back(std::move(block));
}

RecurrentStates::Block RecurrentStates::take(std::vector<Block>& pool, uint64_t bytes) {
  if (pool.empty()) return std::make_shared<HugeBuffer>(bytes);
  Block block = std::move(pool.back());
  pool.pop_back();
  return block;
}

void RecurrentStates::forget(std::vector<Placed>& from, size_t first, size_t count,
                             std::vector<Block>& pool) {
  for (size_t i = first; i < first + count; ++i) release(std::move(from[i].second), pool);
  from.erase(from.begin() + static_cast<int64_t>(first), from.begin() + static_cast<int64_t>(first + count));
}

void RecurrentStates::reserve(int64_t position, int64_t n) {
  if (empty()) return;
  segments_.clear();
  forget(pending_, 0, pending_.size(), free_);
  forget(pending_log_, 0, pending_log_.size(), free_log_);
  const int64_t end = position + n, interval = layout_->interval;
  if (layout_->reach > 0) {
    const int64_t oldest = layout_->oldest(end);
    reserve_log(std::max(position, oldest), end);
    for (int64_t at = std::max(oldest, position / interval * interval + interval); at < end; at += interval)
      pending_.emplace_back(at, take(free_, layout_->state_bytes()));
  }
  pending_.emplace_back(end, take(free_, layout_->state_bytes()));
  const float* in = floats(held_.current);
  for (int64_t begin = position; const auto& [at, block] : pending_) {
    segments_.push_back({begin, at, in, writable(block)});
    in = writable(block);
    begin = at;
  }
}

// Blocks of the log for the rows of [begin, end); one that holds rows which others see is copied.
void RecurrentStates::reserve_log(int64_t begin, int64_t end) {
  const int64_t interval = layout_->interval;
  for (int64_t at = begin / interval * interval; at < end; at += interval) {
    const bool there = !held_.log.empty() && held_.log.back().first == at;
    if (there && held_.log.back().second.use_count() == 1) continue;
    Block block = take(free_log_, layout_->log_bytes());
    if (there) {
      std::memcpy(block->data(), held_.log.back().second->data(), layout_->log_bytes());
      held_.log.back().second = std::move(block);
    } else {
      pending_log_.emplace_back(at, std::move(block));
    }
  }
}

const RecurrentStates::Block& RecurrentStates::log_block(int64_t position) const {
  const std::vector<Placed>& list =
      !pending_log_.empty() && position >= pending_log_.front().first ? pending_log_ : held_.log;
  return list[static_cast<size_t>((position - list.front().first) / layout_->interval)].second;
}

float* RecurrentStates::log_row(int64_t position) const {
  if (layout_->reach == 0 || position < layout_->oldest(pending_.back().first)) return nullptr;
  return writable(log_block(position)) + position % layout_->interval * layout_->log_values;
}

void RecurrentStates::advance() {
  if (empty()) return;
  Block before = std::exchange(held_.current, pending_.back().second);
  const int64_t end = pending_.back().first;
  segments_.clear();
  if (layout_->reach > 0) {
    for (auto& placed : pending_)
      if (placed.first % layout_->interval == 0) held_.checkpoints.push_back(std::move(placed));
    for (auto& placed : pending_log_) held_.log.push_back(std::move(placed));
    for (auto [list, pool] : {std::pair(&held_.checkpoints, &free_), std::pair(&held_.log, &free_log_)}) {
      size_t outdated = 0;
      while (outdated < list->size() && (*list)[outdated].first < layout_->oldest(end)) ++outdated;
      forget(*list, 0, outdated, *pool);
    }
  }
  pending_.clear();
  pending_log_.clear();
  release(std::move(before), free_);  // unless it is a checkpoint
}

void RecurrentStates::replay(int64_t from, int64_t to, const float* in, float* out) const {
  for (int64_t at = from; at < to; in = out) {
    const int64_t n = std::min(to, at / layout_->interval * layout_->interval + layout_->interval) - at;
    const float* rows = floats(log_block(at)) + at % layout_->interval * layout_->log_values;
    for (const RecurrentLayout::Mixer& mixer : layout_->mixers)
      for (int64_t h = 0; h < mixer.shape.kv_heads; ++h) {
        RecurrenceTokens tokens;
        tokens.update = rows + mixer.log + h * mixer.shape.update_values();
        tokens.update_stride = layout_->log_values;
        tokens.count = n;
        const int64_t state = mixer.state + h * mixer.shape.head_values();
        run_recurrence(mixer.shape, tokens, 0, mixer.shape.columns(), in + state, out + state);
      }
    at += n;
  }
}

void RecurrentStates::rollback(int64_t position) {
  if (empty()) return;
  const auto after = std::find_if(held_.checkpoints.begin(), held_.checkpoints.end(),
                                  [&](const Placed& placed) { return placed.first > position; });
  require(after != held_.checkpoints.begin(), ErrorCode::limit, "no state is kept from before token {}",
          position);
  const Placed from = *(after - 1);
  Block target = from.second;
  if (from.first < position) {
    target = take(free_, layout_->state_bytes());
    replay(from.first, position, floats(from.second), writable(target));
  }
  release(std::exchange(held_.current, std::move(target)), free_);
  const auto kept = static_cast<size_t>(after - held_.checkpoints.begin());
  forget(held_.checkpoints, kept, held_.checkpoints.size() - kept, free_);
  const auto unwritten = std::find_if(held_.log.begin(), held_.log.end(),
                                      [&](const Placed& placed) { return placed.first >= position; });
  const auto rows = static_cast<size_t>(unwritten - held_.log.begin());
  forget(held_.log, rows, held_.log.size() - rows, free_log_);
}

int64_t RecurrentStates::bytes() const {
  std::set<const HugeBuffer*> seen;
  int64_t sum = 0;
  const auto count = [&](const Block& block) {
    if (block && seen.insert(block.get()).second) sum += static_cast<int64_t>(block->size());
  };
  count(held_.current);
  for (const auto* list : {&held_.checkpoints, &held_.log, &pending_, &pending_log_})
    for (const auto& [at, block] : *list) count(block);
  for (const auto* list : {&free_, &free_log_})
    for (const Block& block : *list) count(block);
  return sum;
}

void RecurrentStates::restore(Contents contents, int64_t position, int64_t low_water) {
  if (empty()) {
    require(!contents.current && contents.checkpoints.empty() && contents.log.empty(), ErrorCode::corrupt,
            "the snapshot holds states of recurrences, the model has none");
    return;
  }
  const int64_t reach = layout_->reach, interval = layout_->interval;
  const auto check = [&](const std::vector<Placed>& list, uint64_t bytes, const char* what) {
    int64_t last = -1;
    for (const auto& [at, block] : list) {
      require(
          reach > 0 && at > last && at <= position && at % interval == 0 && block && block->size() == bytes,
          ErrorCode::corrupt, "the snapshot's {} at token {} is out of place or of another size", what, at);
      last = at;
    }
  };
  require(contents.current && contents.current->size() == layout_->state_bytes(), ErrorCode::corrupt,
          "the snapshot does not have the recurrent state of this model");
  check(contents.checkpoints, layout_->state_bytes(), "state");
  check(contents.log, layout_->log_bytes(), "log");
  if (reach > 0) {
    // From the checkpoint at or before low_water, the log is whole.
    require(!contents.checkpoints.empty() && contents.checkpoints.front().first <= low_water,
            ErrorCode::corrupt, "the snapshot has no recurrent state from before token {}", low_water);
    int64_t next = contents.checkpoints.front().first;
    for (const auto& placed : contents.log) next += placed.first == next ? interval : 0;
    require(next >= position &&
                (contents.log.empty() || contents.log.front().first == contents.checkpoints.front().first),
            ErrorCode::corrupt, "the snapshot has no log of token {}", next);
  }
  *this = RecurrentStates(layout_);
  held_ = std::move(contents);
}

}  // namespace mneme
