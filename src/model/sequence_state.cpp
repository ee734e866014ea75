#include "model/sequence_state.h"

#include <algorithm>
#include <cstring>

#include "core/fail.h"

namespace mneme {

namespace {

/// Keys that a query of a window sees at most; 0 = all.
int64_t window_keys(const MixerConfig& mixer) {
  if (mixer.type != MixerType::window) return 0;
  return int64_t{mixer.window} + (mixer.edge == WindowEdge::exact ? 0 : 1);
}

void add_cache(const MixerConfig& mixer, KvFormat format, CacheLayout& layout) {
  if (mixer.recurrent()) {
    layout.layers.emplace_back();  // no keys
    layout.recurrent.add(recurrence_shape(mixer));
    return;
  }
  const int64_t window = window_keys(mixer);
  const int64_t sinks = window > 0 ? layout.sink_tokens + mixer.sinks : 0;
  size_t group = 0;
  while (group < layout.groups.size() &&
         (layout.groups[group].window != window || layout.groups[group].sinks != sinks))
    ++group;
  if (group == layout.groups.size()) layout.groups.push_back({0, window, sinks});
  KvGeometry geometry{mixer.kv_int8 ? KvFormat::int8 : format, mixer.kv_heads, mixer.head_dim};
  if (mixer.kv_int8) geometry.least_scale = kLeastKvScale;
  const int64_t summary = mixer.type == MixerType::sparse ? int64_t{mixer.block} : 0;
  layout.layers.push_back({geometry, group, layout.groups[group].block_bytes, summary});
  layout.groups[group].block_bytes += (geometry.page_bytes() + 63) / 64 * 64;
}

std::vector<KeySummaries::Shape> summary_shapes(const CacheLayout& layout) {
  std::vector<KeySummaries::Shape> shapes;
  for (const CacheLayout::Layer& layer : layout.layers) shapes.push_back({layer.geometry, layer.summary});
  return shapes;
}

}  // namespace

RecurrenceShape recurrence_shape(const MixerConfig& mixer) {
  return {mixer.type == MixerType::delta ? RecurrenceShape::Rule::delta : RecurrenceShape::Rule::gla,
          mixer.kv_heads, mixer.heads / mixer.kv_heads, mixer.head_dim};
}

bool CacheLayout::forgets() const {
  return !convs.empty() || !recurrent.mixers.empty() ||
         std::any_of(groups.begin(), groups.end(), [](const Group& group) { return group.window > 0; });
}

CacheLayout make_cache_layout(const ModelConfig& config, KvFormat format, int64_t max_rollback) {
  CacheLayout layout;
  layout.max_rollback = max_rollback;
  layout.recurrent = RecurrentLayout(max_rollback);
  layout.sink_tokens = config.sink_tokens;
  for (const LayerConfig& layer : config.layers) {
    for (const MixerConfig& mixer : layer.mixer.branches()) add_cache(mixer, format, layout);
    if (layer.memory && layer.memory->conv) {
      const EngramConvConfig& conv = *layer.memory->conv;
      const int64_t reach = int64_t{conv.kernel - 1} * conv.dilation;
      layout.convs.push_back({config.d_model, std::max<int64_t>(1, reach + max_rollback)});
    }
  }
  return layout;
}

SequenceState::SequenceState(std::shared_ptr<const CacheLayout> layout)
    : layout_(std::move(layout)),
      blocks_(layout_->groups.size()),
      bases_(layout_->groups.size()),
      recurrent_(std::shared_ptr<const RecurrentLayout>(layout_, &layout_->recurrent)),
      summaries_(summary_shapes(*layout_)) {
  for (const CacheLayout::Conv& conv : layout_->convs) convs_.emplace_back(conv.values());
  for (const CacheLayout::Group& group : layout_->groups) released_.push_back(sink_blocks(group));
}

// Blocks that are never given back.
int64_t SequenceState::sink_blocks(const CacheLayout::Group& group) {
  return (group.sinks + kPagePositions - 1) / kPagePositions;
}

void SequenceState::put(size_t group, size_t index, Block block) {
  auto& blocks = blocks_[group];
  auto& bases = bases_[group];
  if (index >= blocks.size()) {
    blocks.resize(index + 1);
    bases.resize(index + 1);
  }
  bases[index] = block ? block->data() : nullptr;
  blocks[index] = std::move(block);
}

void SequenceState::reserve(int64_t n) {
  const auto first = static_cast<size_t>(position_ / kPagePositions);
  const auto count = static_cast<size_t>((position_ + n + kPagePositions - 1) / kPagePositions);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    const auto bytes = static_cast<uint64_t>(layout_->groups[g].block_bytes);
    for (size_t i = first; i < count; ++i) {
      const Block* block = i < blocks_[g].size() ? &blocks_[g][i] : nullptr;
      if (block == nullptr || !*block) {
        put(g, i, std::make_shared<HugeBuffer>(bytes));
      } else if (block->use_count() > 1) {
        auto copy = std::make_shared<HugeBuffer>(bytes);
        std::memcpy(copy->data(), (*block)->data(), bytes);
        put(g, i, std::move(copy));
      }
    }
  }
  recurrent_.reserve(position_, n);
  summaries_.reserve(position_ + n);
}

void SequenceState::advance(int64_t n) {
  position_ += n;
  recurrent_.advance();
  summaries_.advance(position_);
  if (!convs_.empty() || !recurrent_.empty())
    low_water_ = std::max(low_water_, position_ - layout_->max_rollback);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    const CacheLayout::Group& group = layout_->groups[g];
    if (group.window == 0) continue;
    // The next query, after a rollback of max_rollback, is at position_ - max_rollback and sees window keys
    // with itself.
    const int64_t keep_from = position_ - layout_->max_rollback - group.window + 1;
    const int64_t first_kept = std::min(keep_from / kPagePositions, std::ssize(blocks_[g]));
    for (; released_[g] < first_kept; ++released_[g]) put(g, static_cast<size_t>(released_[g]), nullptr);
    if (keep_from > 0) low_water_ = std::max(low_water_, position_ - layout_->max_rollback);
  }
}

void SequenceState::rollback(int64_t n) {
  const int64_t held = position_ - layout_->sink_tokens;
  require(n >= 0 && n <= held, ErrorCode::invalid_argument,
          "cannot roll back {} tokens: the session holds {}", n, held);
  require(n == 0 || position_ - n >= low_water_, ErrorCode::limit,
          "cannot roll back {} tokens: with windowed or recurrent layers or memory convolutions the last {} "
          "can be undone (max_rollback {})",
          n, position_ - low_water_, layout_->max_rollback);
  if (n > 0) recurrent_.rollback(position_ - n);
  position_ -= n;
  summaries_.rollback(position_);
  // Also for n = 0: a pass that was cancelled has reserved blocks that nothing was written to.
  const auto count = static_cast<size_t>((position_ + kPagePositions - 1) / kPagePositions);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    if (blocks_[g].size() <= count) continue;
    blocks_[g].resize(count);
    bases_[g].resize(count);
  }
}

std::byte* SequenceState::page(size_t layer, int64_t position) const {
  const CacheLayout::Layer& at = layout_->layers[layer];
  return blocks_[at.group][static_cast<size_t>(position / kPagePositions)]->data() + at.offset;
}

int64_t SequenceState::bytes() const {
  int64_t sum = summaries_.bytes();
  for (const auto& group : blocks_)
    for (const Block& block : group) sum += block ? static_cast<int64_t>(block->size()) : 0;
  for (const auto& conv : convs_) sum += static_cast<int64_t>(conv.size() * sizeof(float));
  return sum + recurrent_.bytes();
}

void SequenceState::restore(int64_t position, int64_t low_water, std::vector<std::vector<Block>> blocks,
                            std::vector<std::vector<float>> convs, RecurrentStates::Contents recurrent) {
  recurrent_.restore(std::move(recurrent), position, low_water);
  position_ = position;
  low_water_ = low_water;
  blocks_ = std::move(blocks);
  convs_ = std::move(convs);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    bases_[g].clear();
    for (const Block& block : blocks_[g]) bases_[g].push_back(block ? block->data() : nullptr);
    released_[g] = sink_blocks(layout_->groups[g]);
    while (released_[g] < std::ssize(blocks_[g]) && !blocks_[g][static_cast<size_t>(released_[g])])
      ++released_[g];
  }
  summaries_.clear();
}

}  // namespace mneme
