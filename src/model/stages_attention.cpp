// Softmax attention over the paged cache.
//
// Decode: the positions that a query sees are cut into up to kMaxParts parts, by their number alone, so that
// the result does not depend on the threads; a task is one part of one kv head. The task of the last part
// also rotates and stores the new key. The parts are merged by the next stage. Prefill: keys are stored
// first; a task is kQueryRows tokens of one kv head, so that a block of keys serves all query heads of
// several tokens.
#include "model/attention_stage.h"

namespace mneme {
namespace {

constexpr int64_t kStoreRows = 16;

struct Parts {
  int64_t first_block, blocks, count;
  int64_t begin(int64_t part) const { return (first_block + blocks * part / count) * kAttentionBlock; }
};

Parts parts_of(int64_t lo, int64_t hi) {
  const int64_t first = lo / kAttentionBlock, blocks = (hi + kAttentionBlock - 1) / kAttentionBlock - first;
  return {first, blocks, part_count(blocks)};
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
    merge_parts(step, row, parts(slice).count, slice.state->layout().layers[index_].geometry.padded_dim(),
                out);
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
    const AttentionState state = clear_part(ws, slice.row, kv_head, part, padded);
    my.lo.assign(static_cast<size_t>(group_), first_visible(slice.position));
    my.hi.assign(static_cast<size_t>(group_), slice.position + 1);
    AttentionArgs args = make_args(slice, kv_head);
    args.q = my.q.data();
    args.queries = group_;
    args.lo = my.lo.data();
    args.hi = my.hi.data();
    // A thread's tasks follow each other: the next part of this head, or the first of the next one.
    args.then_kv_head = part + 1 < p.count ? kv_head : kv_head + 1;
    if (args.then_kv_head < mixer_.kv_heads) args.then_position = p.begin((part + 1) % p.count);
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
  int64_t tasks(const Step& step) const override { return prefill_tasks(step); }
  void run(Step& step, int thread, int64_t task) const override {
    const QueryRows rows = query_rows(step, task);
    Workspace::Thread& my = step.workspace.threads[static_cast<size_t>(thread)];
    const AttentionState state = load_queries(step, rows, my);
    AttentionArgs args = make_args(*rows.slice, rows.kv_head);
    args.q = my.q.data();
    args.queries = rows.count * group_;
    args.lo = my.lo.data();
    args.hi = my.hi.data();
    const int64_t begin = my.lo.front() / kAttentionBlock * kAttentionBlock;
    attend_with_sinks(args, begin, my.hi.back(), true, my.attention, state);
    write_outputs(step, rows, my);
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
