#include "model/sequence_state.h"

#include <algorithm>
#include <cstring>

#include "core/fail.h"

namespace mneme {

namespace {

void add_cache(const MixerConfig& mixer, KvFormat format, CacheLayout& layout) {
  if (!mixer.softmax()) {
    layout.layers.emplace_back();  // no keys
    return;
  }
  const int64_t window = mixer.type == MixerType::window ? mixer.window : 0;
  const int64_t sinks = window > 0 ? mixer.sinks : 0;
  size_t group = 0;
  while (group < layout.groups.size() &&
         (layout.groups[group].window != window || layout.groups[group].sinks != sinks))
    ++group;
  if (group == layout.groups.size()) layout.groups.push_back({0, window, sinks});
  const KvGeometry geometry{format, mixer.kv_heads, mixer.head_dim};
  layout.layers.push_back({geometry, group, layout.groups[group].block_bytes});
  layout.groups[group].block_bytes += (geometry.page_bytes() + 63) / 64 * 64;
}

}  // namespace

CacheLayout make_cache_layout(const ModelConfig& config, KvFormat format, int64_t max_rollback) {
  CacheLayout layout;
  layout.max_rollback = max_rollback;
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
    : layout_(std::move(layout)), blocks_(layout_->groups.size()), bases_(layout_->groups.size()) {
  for (const CacheLayout::Conv& conv : layout_->convs) convs_.emplace_back(conv.values());
}

void SequenceState::refresh(size_t group) {
  bases_[group].clear();
  for (const Block& block : blocks_[group]) bases_[group].push_back(block ? block->data() : nullptr);
}

void SequenceState::reserve(int64_t n) {
  const auto first = static_cast<size_t>(position_ / kPagePositions);
  const auto count = static_cast<size_t>((position_ + n + kPagePositions - 1) / kPagePositions);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    auto& blocks = blocks_[g];
    const auto bytes = static_cast<uint64_t>(layout_->groups[g].block_bytes);
    for (size_t i = first; i < count; ++i) {
      if (i >= blocks.size()) blocks.resize(i + 1);
      if (!blocks[i]) {
        blocks[i] = std::make_shared<HugeBuffer>(bytes);
      } else if (blocks[i].use_count() > 1) {
        auto copy = std::make_shared<HugeBuffer>(bytes);
        std::memcpy(copy->data(), blocks[i]->data(), bytes);
        blocks[i] = std::move(copy);
      }
    }
    refresh(g);
  }
}

void SequenceState::advance(int64_t n) {
  position_ += n;
  if (!convs_.empty()) low_water_ = std::max(low_water_, position_ - layout_->max_rollback);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    const CacheLayout::Group& group = layout_->groups[g];
    if (group.window == 0) continue;
    // The next query, after a rollback of max_rollback, is at position_ - max_rollback and sees window keys
    // with itself.
    const int64_t keep_from = position_ - layout_->max_rollback - group.window + 1;
    const int64_t first_kept = keep_from / kPagePositions;
    for (int64_t i = (group.sinks + kPagePositions - 1) / kPagePositions; i < first_kept; ++i)
      if (static_cast<size_t>(i) < blocks_[g].size()) blocks_[g][static_cast<size_t>(i)].reset();
    if (keep_from > 0) low_water_ = std::max(low_water_, position_ - layout_->max_rollback);
    refresh(g);
  }
}

void SequenceState::rollback(int64_t n) {
  require(n >= 0 && n <= position_, ErrorCode::invalid_argument,
          "cannot roll back {} tokens: the session holds {}", n, position_);
  require(position_ - n >= low_water_ || n == 0, ErrorCode::limit,
          "cannot roll back {} tokens: with windowed layers or memory convolutions the last {} can be undone "
          "(max_rollback {})",
          n, position_ - low_water_, layout_->max_rollback);
  position_ -= n;
  const auto count = static_cast<size_t>((position_ + kPagePositions - 1) / kPagePositions);
  for (size_t g = 0; g < blocks_.size(); ++g) {
    if (blocks_[g].size() > count) blocks_[g].resize(count);
    refresh(g);
  }
}

std::byte* SequenceState::page(size_t layer, int64_t position) const {
  const CacheLayout::Layer& at = layout_->layers[layer];
  return blocks_[at.group][static_cast<size_t>(position / kPagePositions)]->data() + at.offset;
}

int64_t SequenceState::bytes() const {
  int64_t sum = 0;
  for (const auto& group : blocks_)
    for (const Block& block : group) sum += block ? static_cast<int64_t>(block->size()) : 0;
  for (const auto& conv : convs_) sum += static_cast<int64_t>(conv.size() * sizeof(float));
  return sum;
}

void SequenceState::restore(int64_t position, int64_t low_water, std::vector<std::vector<Block>> blocks,
                            std::vector<std::vector<float>> convs) {
  position_ = position;
  low_water_ = low_water;
  blocks_ = std::move(blocks);
  convs_ = std::move(convs);
  for (size_t g = 0; g < blocks_.size(); ++g) refresh(g);
}

}  // namespace mneme
