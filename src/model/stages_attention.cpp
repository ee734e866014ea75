// Softmax attention over the paged cache.
//
// Decode: the positions that a query sees are cut into up to kMaxParts parts, by their number alone, so that
// the result does not depend on the threads; a task is one part of one kv head. The task of the last part
// also rotates and stores the new key. The parts are merged by the next stage. Prefill: keys are stored
// first; a task is kQueryRows tokens of one kv head, so that a block of keys serves all query heads of
// several tokens.
#include <cmath>
#include <limits>

#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kMaxParts = 16;
constexpr int64_t kPartPositions = 256;  // a part is at least this long
constexpr int64_t kQueryRows = 16;
constexpr int64_t kStoreRows = 16;

class AttentionStage : public Stage {
 public:
  AttentionStage(const ModelImpl& model, size_t index, bool decode)
      : model_(model),
        weights_(model.mixer_weights(index)),
        mixer_(model.mixer_config(index)),
        index_(index),
        sink_tokens_(model.config.sink_tokens),
        group_(mixer_.heads / mixer_.kv_heads) {
    for (size_t i = 0; i < weights_.rope; ++i)
      pairs_before_ += static_cast<int64_t>(model.ropes[i].inverse_frequencies.size());
    if (mixer_.type == MixerType::window) {
      const bool one_more =
          mixer_.edge == WindowEdge::plus_one || (mixer_.edge == WindowEdge::plus_one_prefill && !decode);
      window_ = int64_t{mixer_.window} + (one_more ? 1 : 0);
      sinks_ = sink_tokens_ + int64_t{mixer_.sinks};
    }
    scale_ = static_cast<float>(mixer_.scale > 0 ? mixer_.scale : 1.0 / std::sqrt(double(mixer_.head_dim)));
  }

 protected:
  const RopeTable& rope_table() const { return model_.ropes[weights_.rope]; }

  // Norm and rotation of one query or key head [head_dim] of a row.
  void normalise_and_rotate(const Step& step, int64_t row, const std::vector<float>& norm,
                            float* head) const {
    if (!norm.empty())
      rms_norm(head, norm.data(), static_cast<float>(model_.config.norm.eps), mixer_.head_dim, head);
    const auto pairs = static_cast<int64_t>(rope_table().inverse_frequencies.size());
    if (pairs == 0) return;
    const int64_t at = pairs_before_ * step.rows() + row * pairs;
    rope(head, step.workspace.cos.data() + at, step.workspace.sin.data() + at, 2 * pairs, rope_table().half);
  }

  // Queries of the group of one kv head for a row: q [group, padded], scaled.
  void make_queries(const Step& step, int64_t row, int64_t kv_head, int64_t padded, float* q) const {
    const int64_t dim = mixer_.head_dim;
    const float* source =
        step.workspace.qkv.data() + row * qkv_shape(mixer_).total() + kv_head * group_ * dim;
    for (int64_t h = 0; h < group_; ++h, q += padded, source += dim) {
      std::copy_n(source, dim, q);
      std::fill_n(q + dim, padded - dim, 0.0f);
      normalise_and_rotate(step, row, weights_.q_norm, q);
      for (int64_t i = 0; i < dim; ++i) q[i] *= scale_;
    }
  }

  void store_key_value(const Step& step, const Slice& slice, int64_t row, int64_t kv_head,
                       float* scratch) const {
    const QkvShape shape = qkv_shape(mixer_);
    const int64_t dim = mixer_.head_dim, position = slice.position + row - slice.row;
    const float* k = step.workspace.qkv.data() + row * shape.total() + shape.q + kv_head * dim;
    std::copy_n(k, dim, scratch);
    normalise_and_rotate(step, row, weights_.k_norm, scratch);
    const CacheLayout::Layer& cache = slice.state->layout().layers[index_];
    store_kv(cache.geometry, slice.state->page(index_, position), kv_head, position % kPagePositions, scratch,
             k + shape.kv);
  }

  // A query sees [first_visible, end_visible) and the sinks. Sink tokens see each other, in both directions.
  int64_t first_visible(int64_t position) const {
    return window_ == 0 ? 0 : std::max<int64_t>(0, position + 1 - window_);
  }
  int64_t end_visible(int64_t position) const {
    return position < sink_tokens_ ? sink_tokens_ : position + 1;
  }

  AttentionArgs make_args(const Slice& slice, int64_t kv_head) const {
    const CacheLayout::Layer& cache = slice.state->layout().layers[index_];
    AttentionArgs args;
    args.geometry = cache.geometry;
    args.kv_head = kv_head;
    args.pages = slice.state->pages(index_);
    args.page_offset = cache.offset;
    args.sinks = sinks_;
    args.softcap = static_cast<float>(mixer_.softcap);
    return args;
  }

  // [begin, end) and, before it, the sinks that a window does not reach.
  void attend_with_sinks(const AttentionArgs& args, int64_t begin, int64_t end, bool with_sinks,
                         AttentionScratch& scratch, const AttentionState& state) const {
    if (with_sinks && args.sinks > 0 && begin > 0)
      attend(args, 0, std::min(args.sinks, begin), scratch, state);
    attend(args, begin, end, scratch, state);
  }

  const float* sink_logit(int64_t head) const {
    return weights_.sinks.empty() ? nullptr : &weights_.sinks[static_cast<size_t>(head)];
  }

  std::string describe_mixer() const {
    std::string text = fmt::format("{} heads of {}, {} kv", mixer_.heads, mixer_.head_dim, mixer_.kv_heads);
    if (mixer_.type == MixerType::window) text += fmt::format(", window {}", window_text());
    if (mixer_.qk_norm) text += ", qk norm";
    if (sinks_ > 0 || mixer_.sink_logits) text += ", sinks";
    return text;
  }

  std::string window_text() const {
    const char* more = mixer_.edge == WindowEdge::exact      ? ""
                       : mixer_.edge == WindowEdge::plus_one ? " + 1"
                                                             : " (+ 1 in prefill)";
    return std::to_string(mixer_.window) + more;
  }

  const ModelImpl& model_;
  const MixerWeights& weights_;
  const MixerConfig& mixer_;
  const size_t index_;  // mixer index
  const int64_t sink_tokens_;
  int64_t window_ = 0;  // keys that a query sees, its own included; 0 = all
  int64_t sinks_ = 0;   // first positions that a window does not hide, sink tokens included
  const int64_t group_;
  int64_t pairs_before_ = 0;
  float scale_ = 1;
};

struct Parts {
  int64_t first_block, blocks, count;
  int64_t begin(int64_t part) const { return (first_block + blocks * part / count) * kAttentionBlock; }
};

Parts parts_of(int64_t lo, int64_t hi) {
  const int64_t first = lo / kAttentionBlock, blocks = (hi + kAttentionBlock - 1) / kAttentionBlock - first;
  const int64_t per_part = kPartPositions / kAttentionBlock;
  return {first, blocks, std::clamp<int64_t>((blocks + per_part - 1) / per_part, 1, kMaxParts)};
}

// Partial states lie at [((row * kv_heads + kv_head) * kMaxParts + part) * group].
int64_t part_index(int64_t row, const MixerConfig& mixer, int64_t kv_head, int64_t part) {
  return ((row * mixer.kv_heads + kv_head) * kMaxParts + part) * (mixer.heads / mixer.kv_heads);
}

class DecodeAttention final : public AttentionStage, public AttentionParts {
 public:
  DecodeAttention(const ModelImpl& model, size_t index) : AttentionStage(model, index, true) {}
  std::string describe() const override {
    return "rope+store+attend " + describe_mixer() + ", up to " + std::to_string(kMaxParts) + " parts";
  }
  int64_t tasks(const Step& step) const override {
    int64_t count = 0;
    for (const Slice& slice : step.slices) count += mixer_.kv_heads * parts(slice).count;
    return count;
  }
  void run(Step& step, int thread, int64_t task) const override {
    for (const Slice& slice : step.slices) {
      const Parts p = parts(slice);
      const int64_t here = mixer_.kv_heads * p.count;
      if (task < here) return run_part(step, thread, slice, p, task / p.count, task % p.count);
      task -= here;
    }
  }
  void merge(const Step& step, int64_t row, float* out) const override {
    const Slice& slice = step.slices[static_cast<size_t>(row)];
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    const Parts p = parts(slice);
    Workspace& ws = step.workspace;
    for (int64_t head = 0; head < mixer_.heads; ++head) {
      const int64_t at = part_index(row, mixer_, head / group_, 0) + head % group_;
      merge_attention({&ws.m[static_cast<size_t>(at)], &ws.l[static_cast<size_t>(at)],
                       &ws.acc[static_cast<size_t>(at * padded)]},
                      p.count, group_, padded, mixer_.head_dim, sink_logit(head),
                      out + head * mixer_.head_dim);
    }
  }

 private:
  Parts parts(const Slice& slice) const {
    return parts_of(first_visible(slice.position), slice.position + 1);
  }

  void run_part(Step& step, int thread, const Slice& slice, const Parts& p, int64_t kv_head,
                int64_t part) const {
    Workspace& ws = step.workspace;
    Workspace::Thread& my = ws.threads[static_cast<size_t>(thread)];
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    grow(my.q, (group_ + 1) * padded);
    make_queries(step, slice.row, kv_head, padded, my.q.data());
    if (part == p.count - 1) store_key_value(step, slice, slice.row, kv_head, my.q.data() + group_ * padded);
    const int64_t at = part_index(slice.row, mixer_, kv_head, part);
    const AttentionState state{&ws.m[static_cast<size_t>(at)], &ws.l[static_cast<size_t>(at)],
                               &ws.acc[static_cast<size_t>(at * padded)]};
    std::fill_n(state.m, group_, -std::numeric_limits<float>::infinity());
    std::fill_n(state.l, group_, 0.0f);
    std::fill_n(state.acc, group_ * padded, 0.0f);
    my.lo.assign(static_cast<size_t>(group_), first_visible(slice.position));
    my.hi.assign(static_cast<size_t>(group_), slice.position + 1);
    AttentionArgs args = make_args(slice, kv_head);
    args.q = my.q.data();
    args.queries = group_;
    args.lo = my.lo.data();
    args.hi = my.hi.data();
    attend_with_sinks(args, p.begin(part), std::min(p.begin(part + 1), slice.position + 1), part == 0,
                      my.attention, state);
  }
};

class PrefillStore final : public AttentionStage {
 public:
  PrefillStore(const ModelImpl& model, size_t index) : AttentionStage(model, index, false) {}
  std::string describe() const override { return "rope+store        keys and values, " + describe_mixer(); }
  int64_t tasks(const Step& step) const override { return (step.rows() + kStoreRows - 1) / kStoreRows; }
  void run(Step& step, int thread, int64_t task) const override {
    std::vector<float>& scratch = step.workspace.threads[static_cast<size_t>(thread)].row;
    grow(scratch, mixer_.head_dim);
    const int64_t begin = task * kStoreRows, end = std::min(begin + kStoreRows, step.rows());
    for (const Slice& slice : step.slices) {
      const int64_t first = std::max(begin, slice.row), last = std::min(end, slice.row + slice.count);
      for (int64_t row = first; row < last; ++row)
        for (int64_t h = 0; h < mixer_.kv_heads; ++h) store_key_value(step, slice, row, h, scratch.data());
    }
  }
};

class PrefillAttention final : public AttentionStage {
 public:
  PrefillAttention(const ModelImpl& model, size_t index) : AttentionStage(model, index, false) {}
  std::string describe() const override {
    return fmt::format("attend            {}, {} tokens a task", describe_mixer(), kQueryRows);
  }
  int64_t tasks(const Step& step) const override {
    int64_t count = 0;
    for (const Slice& slice : step.slices) count += mixer_.kv_heads * query_blocks(slice);
    return count;
  }
  void run(Step& step, int thread, int64_t task) const override {
    for (const Slice& slice : step.slices) {
      const int64_t here = mixer_.kv_heads * query_blocks(slice);
      if (task < here)
        return run_block(step, thread, slice, task / query_blocks(slice), task % query_blocks(slice));
      task -= here;
    }
  }

 private:
  static int64_t query_blocks(const Slice& slice) { return (slice.count + kQueryRows - 1) / kQueryRows; }

  void run_block(Step& step, int thread, const Slice& slice, int64_t kv_head, int64_t block) const {
    Workspace& ws = step.workspace;
    Workspace::Thread& my = ws.threads[static_cast<size_t>(thread)];
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    const int64_t first = block * kQueryRows, rows = std::min(kQueryRows, slice.count - first);
    const int64_t queries = rows * group_;
    grow(my.q, queries * padded);
    grow(my.acc, queries * padded);
    my.m.assign(static_cast<size_t>(queries), -std::numeric_limits<float>::infinity());
    my.l.assign(static_cast<size_t>(queries), 0.0f);
    std::fill_n(my.acc.begin(), queries * padded, 0.0f);
    my.lo.resize(static_cast<size_t>(queries));
    my.hi.resize(static_cast<size_t>(queries));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t position = slice.position + first + r;
      make_queries(step, slice.row + first + r, kv_head, padded, my.q.data() + r * group_ * padded);
      for (int64_t h = 0; h < group_; ++h) {
        my.lo[static_cast<size_t>(r * group_ + h)] = first_visible(position);
        my.hi[static_cast<size_t>(r * group_ + h)] = end_visible(position);
      }
    }
    AttentionArgs args = make_args(slice, kv_head);
    args.q = my.q.data();
    args.queries = queries;
    args.lo = my.lo.data();
    args.hi = my.hi.data();
    const AttentionState state{my.m.data(), my.l.data(), my.acc.data()};
    const int64_t begin = my.lo.front() / kAttentionBlock * kAttentionBlock;
    attend_with_sinks(args, begin, my.hi.back(), true, my.attention, state);
    const int64_t dim = mixer_.head_dim, width = mixer_.heads * dim;
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t head = kv_head * group_ + i % group_;
      merge_attention({my.m.data() + i, my.l.data() + i, my.acc.data() + i * padded}, 1, 1, padded, dim,
                      sink_logit(head),
                      ws.attention.data() + (slice.row + first + i / group_) * width + head * dim);
    }
  }
};

}  // namespace

DecodeAttentionStage make_decode_attention_stage(const ModelImpl& model, size_t mixer) {
  auto stage = std::make_unique<DecodeAttention>(model, mixer);
  const AttentionParts& parts = *stage;
  return {std::move(stage), parts};
}
StagePtr make_prefill_store_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrefillStore>(model, mixer);
}
StagePtr make_prefill_attention_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrefillAttention>(model, mixer);
}

void size_attention(const ModelImpl& model, const Step& step, bool decode) {
  Workspace& ws = step.workspace;
  int64_t qkv = 0, width = 0, states = 0, padded = 0, pairs = 0;
  for (size_t i = 0; i < model.mixers.size(); ++i) {
    const MixerConfig& mixer = model.mixer_config(i);
    const QkvShape shape = qkv_shape(mixer);
    qkv = std::max(qkv, shape.total());
    width = std::max(width, shape.q);
    if (!mixer.softmax()) continue;
    const KvGeometry geometry{KvFormat::f16, mixer.kv_heads, mixer.head_dim};
    states = std::max(states, int64_t{mixer.heads} * kMaxParts);
    padded = std::max(padded, geometry.padded_dim());
  }
  for (const RopeTable& rope : model.ropes) pairs += static_cast<int64_t>(rope.inverse_frequencies.size());
  grow(ws.qkv, step.rows() * qkv);
  grow(ws.cos, step.rows() * pairs);
  grow(ws.sin, step.rows() * pairs);
  if (!decode) return grow(ws.attention, step.rows() * width);
  grow(ws.m, step.rows() * states);
  grow(ws.l, step.rows() * states);
  grow(ws.acc, step.rows() * states * padded);
}

}  // namespace mneme
