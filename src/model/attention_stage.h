// What the stages of softmax attention share (stages_attention.cpp, stages_sparse.cpp): rotated queries and
// keys of a row, partial results at decode, groups of rows at prefill.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "model/activation_policy.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {

inline constexpr int64_t kMaxParts = 16;        // of a row and kv head at decode
inline constexpr int64_t kPartPositions = 256;  // a part is at least this long
inline constexpr int64_t kQueryRows = 16;       // of a prefill task

/// Parts of so many units of kAttentionBlock keys: by their number alone, so that results do not depend on
/// the threads.
inline int64_t part_count(int64_t units) {
  const int64_t per_part = kPartPositions / kAttentionBlock;
  return std::clamp<int64_t>((units + per_part - 1) / per_part, 1, kMaxParts);
}

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
    spiking_ = mixer_.query.type == Activation::spike;
    neuron_ = neuron_of(mixer_.query);
    scale_ = static_cast<float>(mixer_.scale > 0 ? mixer_.scale : 1.0 / std::sqrt(double(mixer_.head_dim)));
  }

 protected:
  const RopeTable& rope_table() const { return model_.ropes[weights_.rope]; }

  // Norm and rotation of head number `index` [head_dim], a copy of which is at `head`; `all` are the heads
  // [heads, head_dim] of its projection in this row.
  void normalise_and_rotate(const Step& step, int64_t row, const std::vector<float>& norm, const float* all,
                            int64_t heads, int64_t index, float* head) const {
    const int64_t dim = mixer_.head_dim;
    const auto eps = static_cast<float>(model_.config.norm.eps);
    if (!norm.empty() && mixer_.qk_norm_over == QkNormOver::head) rms_norm(head, norm.data(), eps, dim, head);
    if (!norm.empty() && mixer_.qk_norm_over == QkNormOver::all) {
      const float factor = rms_factor(all, eps, heads * dim);
      for (int64_t i = 0; i < dim; ++i) head[i] *= factor * norm[static_cast<size_t>(index * dim + i)];
    }
    const auto pairs = static_cast<int64_t>(rope_table().inverse_frequencies.size());
    if (pairs == 0) return;
    const int64_t at = pairs_before_ * step.rows() + row * pairs;
    rope(head, step.workspace.cos.data() + at, step.workspace.sin.data() + at, 2 * pairs, rope_table().half);
  }

  // Queries of the group of one kv head for a row: q [group, padded], scaled.
  void make_queries(const Step& step, int64_t row, int64_t kv_head, int64_t padded, float* q) const {
    const int64_t dim = mixer_.head_dim;
    const float* all = step.workspace.qkv.data() + row * qkv_shape(mixer_).total();
    for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head, q += padded) {
      std::copy_n(all + head * dim, dim, q);
      std::fill_n(q + dim, padded - dim, 0.0f);
      normalise_and_rotate(step, row, weights_.q_norm, all, mixer_.heads, head, q);
      if (spiking_) spike_in_place(neuron_, q, dim);
      for (int64_t i = 0; i < dim; ++i) q[i] *= scale_;
    }
  }

  void store_key_value(const Step& step, const Slice& slice, int64_t row, int64_t kv_head,
                       float* scratch) const {
    const QkvShape shape = qkv_shape(mixer_);
    const int64_t dim = mixer_.head_dim, position = slice.position + row - slice.row;
    const float* all = step.workspace.qkv.data() + row * shape.total() + shape.q;
    const float* k = all + kv_head * dim;
    std::copy_n(k, dim, scratch);
    normalise_and_rotate(step, row, weights_.k_norm, all, mixer_.kv_heads, kv_head, scratch);
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
    if (with_sinks && args.sinks > 0 && begin > 0) {
      AttentionArgs sinks = args;
      sinks.then_position = begin;
      sinks.then_kv_head = args.kv_head;
      attend(sinks, 0, std::min(args.sinks, begin), scratch, state);
    }
    attend(args, begin, end, scratch, state);
  }

  const float* sink_logit(int64_t head) const {
    return weights_.sinks.empty() ? nullptr : &weights_.sinks[static_cast<size_t>(head)];
  }

  // ---- decode: partial states of a row and kv head, merged by the next stage

  // Partial states lie at [((row * kv_heads + kv_head) * kMaxParts + part) * group].
  int64_t part_index(int64_t row, int64_t kv_head, int64_t part) const {
    return ((row * mixer_.kv_heads + kv_head) * kMaxParts + part) * group_;
  }

  // The state of a part, emptied.
  AttentionState clear_part(Workspace& ws, int64_t row, int64_t kv_head, int64_t part, int64_t padded) const {
    const int64_t at = part_index(row, kv_head, part);
    const AttentionState state{&ws.m[static_cast<size_t>(at)], &ws.l[static_cast<size_t>(at)],
                               &ws.acc[static_cast<size_t>(at * padded)]};
    std::fill_n(state.m, group_, -std::numeric_limits<float>::infinity());
    std::fill_n(state.l, group_, 0.0f);
    std::fill_n(state.acc, group_ * padded, 0.0f);
    return state;
  }

  // The attention output [heads * head_dim] of a row from `count` parts.
  void merge_parts(const Step& step, int64_t row, int64_t count, int64_t padded, float* out) const {
    Workspace& ws = step.workspace;
    for (int64_t head = 0; head < mixer_.heads; ++head) {
      const int64_t at = part_index(row, head / group_, 0) + head % group_;
      merge_attention({&ws.m[static_cast<size_t>(at)], &ws.l[static_cast<size_t>(at)],
                       &ws.acc[static_cast<size_t>(at * padded)]},
                      count, group_, padded, mixer_.head_dim, sink_logit(head), out + head * mixer_.head_dim);
    }
  }

  // ---- prefill: a task is kQueryRows rows of one kv head

  struct QueryRows {
    const Slice* slice;
    int64_t kv_head, first, count;  // rows of the slice
  };

  int64_t prefill_tasks(const Step& step) const {
    int64_t count = 0;
    for (const Slice& slice : step.slices) count += mixer_.kv_heads * query_blocks(slice);
    return count;
  }

  QueryRows query_rows(const Step& step, int64_t task) const {
    const int64_t kv_heads = mixer_.kv_heads;
    size_t i = 0;
    for (; task >= kv_heads * query_blocks(step.slices[i]); ++i)
      task -= kv_heads * query_blocks(step.slices[i]);
    const Slice& slice = step.slices[i];
    const int64_t first = task % query_blocks(slice) * kQueryRows;
    return {&slice, task / query_blocks(slice), first, std::min(kQueryRows, slice.count - first)};
  }

  // The queries of those rows in my.q [rows * group, padded], what each sees in my.lo and my.hi, and their
  // empty states.
  AttentionState load_queries(const Step& step, const QueryRows& rows, Workspace::Thread& my) const {
    const Slice& slice = *rows.slice;
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    const int64_t queries = rows.count * group_;
    grow(my.q, queries * padded);
    grow(my.acc, queries * padded);
    my.m.assign(static_cast<size_t>(queries), -std::numeric_limits<float>::infinity());
    my.l.assign(static_cast<size_t>(queries), 0.0f);
    std::fill_n(my.acc.begin(), queries * padded, 0.0f);
    my.lo.resize(static_cast<size_t>(queries));
    my.hi.resize(static_cast<size_t>(queries));
    for (int64_t r = 0; r < rows.count; ++r) {
      const int64_t position = slice.position + rows.first + r;
      make_queries(step, slice.row + rows.first + r, rows.kv_head, padded, my.q.data() + r * group_ * padded);
      for (int64_t h = 0; h < group_; ++h) {
        my.lo[static_cast<size_t>(r * group_ + h)] = first_visible(position);
        my.hi[static_cast<size_t>(r * group_ + h)] = end_visible(position);
      }
    }
    return {my.m.data(), my.l.data(), my.acc.data()};
  }

  // What the states of those rows hold goes into ws.attention.
  void write_outputs(const Step& step, const QueryRows& rows, Workspace::Thread& my) const {
    const Slice& slice = *rows.slice;
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    const int64_t dim = mixer_.head_dim, width = mixer_.heads * dim;
    for (int64_t i = 0; i < rows.count * group_; ++i) {
      const int64_t head = rows.kv_head * group_ + i % group_;
      merge_attention(
          {my.m.data() + i, my.l.data() + i, my.acc.data() + i * padded}, 1, 1, padded, dim, sink_logit(head),
          step.workspace.attention.data() + (slice.row + rows.first + i / group_) * width + head * dim);
    }
  }

  std::string describe_mixer() const {
    std::string text = fmt::format("{} heads of {}, {} kv", mixer_.heads, mixer_.head_dim, mixer_.kv_heads);
    if (mixer_.type == MixerType::window) text += fmt::format(", window {}", window_text());
    if (mixer_.type == MixerType::sparse)
      text += fmt::format(", top {} blocks of {}{}", mixer_.top_k, mixer_.block,
                          mixer_.shared ? " a kv head" : "");
    if (mixer_.qk_norm)
      text += mixer_.qk_norm_over == QkNormOver::all ? ", qk norm over all heads" : ", qk norm";
    if (spiking_) text += fmt::format(", queries spike (k {:g})", neuron_.k);
    if (mixer_.kv_int8) text += ", int8 cache";
    if (sinks_ > 0 || mixer_.sinks > 0 || mixer_.sink_logits) text += ", sinks";
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

 private:
  static int64_t query_blocks(const Slice& slice) { return (slice.count + kQueryRows - 1) / kQueryRows; }

  int64_t pairs_before_ = 0;
  bool spiking_ = false;  // the queries
  NeuronSetting neuron_;
  float scale_ = 1;
};

}  // namespace mneme
