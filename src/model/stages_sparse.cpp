// Block-sparse softmax attention over the m most important tokens (MoBA, arXiv 2502.13189, section 2.2): of
// the key blocks that lie wholly before a query's own, the query sees those whose mean key has the highest
// product with it; its own block it always sees, causally. top_k counts the own block, so a query sees at
// most m = block * top_k keys.
//
// Decode: one stage stores the new key, brings the means of complete blocks up to date and chooses, a task
// for each kv head; the next attends. Its tasks are parts of the union of the blocks that the query heads of
// a kv head chose, cut by number alone, so that the result does not depend on the threads. Prefill: keys,
// means of the blocks that became complete, then choice and attention together for kQueryRows tokens of one
// kv head, whose queries share the blocks they read. In both lists a block is computed only for the queries
// that chose it.
//
// With every block chosen the order of operations is that of full attention, bit for bit.
#include <limits>

#include "model/attention_stage.h"
#include "model/block_hook.h"

namespace mneme {
namespace {

// A block that a query sees, ordered by block: wholly (its keys up to the query's own), or only the model's
// sink tokens in it.
uint64_t choice(int64_t block, int64_t query, bool sinks_only) {
  return static_cast<uint64_t>(block) << 32 | static_cast<uint64_t>(query) << 1 | (sinks_only ? 1 : 0);
}
int64_t chosen_block(uint64_t choice) {
  return static_cast<int64_t>(choice >> 32);
}
int64_t chosen_query(uint64_t choice) {
  return static_cast<int64_t>((choice & 0xffffffffu) >> 1);
}
bool sinks_only(uint64_t choice) {
  return (choice & 1) != 0;
}

class SparseStage : public AttentionStage {
 public:
  SparseStage(const ModelImpl& model, size_t index) : AttentionStage(model, index, false) {}

 protected:
  int64_t block() const { return mixer_.block; }

  // Blocks wholly before the one of a position.
  int64_t blocks_before(int64_t position) const { return position / block(); }

  // Positions that everybody sees, and the blocks that hold them.
  int64_t sinks_end() const { return sink_tokens_ + int64_t{mixer_.sinks}; }
  int64_t sink_blocks() const { return (sinks_end() + block() - 1) / block(); }

  void store_mean(const Slice& slice, int64_t kv_head, int64_t index, SparseScratch& scratch) const {
    const CacheLayout::Layer& cache = slice.state->layout().layers[index_];
    block_mean({cache.geometry, kv_head, slice.state->pages(index_), cache.offset, index * block(), block()},
               scratch.scores, slice.state->summaries().tile_head(index_, index, kv_head),
               index % kTileBlocks);
  }

  // Appends what queries [count, padded] of one kv head see; query i is at positions[i], never before the one
  // in front of it, and the heads of a group have one position. Sorted by block at the end.
  void choose(const Slice& slice, int64_t kv_head, const float* q, std::span<const int64_t> positions,
              SparseScratch& scratch, std::vector<uint64_t>& out) const {
    const KvGeometry& geometry = slice.state->layout().layers[index_].geometry;
    // Heads that choose together do so by the sum of their products, which is the product of their sum.
    const int64_t together = mixer_.shared ? group_ : 1;
    const auto choices = static_cast<int64_t>(positions.size()) / together;
    if (together > 1) q = sum_groups(q, choices, geometry.padded_dim(), scratch.q);
    const int64_t most = blocks_before(positions.back());
    const int64_t stride = (most + kTileBlocks - 1) / kTileBlocks * kTileBlocks;
    grow(scratch.scores, choices * stride);
    block_scores(q, choices, geometry.padded_dim(), slice.state->summaries().tiles(index_),
                 kv_head * tile_head_values(geometry), most, scratch.scores.data(), stride);
    for (int64_t i = 0; i < choices; ++i) {
      choose_one(slice, kv_head * group_ + i * together % group_,
                 positions[static_cast<size_t>(i * together)], scratch.scores.data() + i * stride, scratch);
      for (int64_t query = i * together; query < (i + 1) * together; ++query) {
        for (const uint32_t b : scratch.blocks) out.push_back(choice(b, query, false));
        for (const uint32_t b : scratch.sink_blocks) out.push_back(choice(b, query, true));
      }
    }
    std::sort(out.begin(), out.end());
  }

  // attend() of args over the chosen blocks, of which units [begin, end) of kAttentionBlock keys count. Each
  // block is computed for those who chose it; `state` is that of all queries.
  void attend_chosen(const AttentionArgs& args, const std::vector<uint64_t>& chosen, int64_t begin,
                     int64_t end, Workspace::Thread& my, const AttentionState& state) const {
    const int64_t last = *std::max_element(args.hi, args.hi + args.queries);
    int64_t unit = 0;  // of the block's first key
    for (size_t i = 0, next = 0; i < chosen.size() && unit < end; i = next) {
      const int64_t index = chosen_block(chosen[i]), first = index * block();
      while (next < chosen.size() && chosen_block(chosen[next]) == index) ++next;
      const int64_t keys = std::min(block(), last - first), units = units_of(keys);
      const int64_t from = std::max(begin - unit, int64_t{0}), to = std::min(end - unit, units);
      unit += units;
      if (from >= to) continue;
      const std::span who(chosen.data() + i, next - i);
      const int64_t stop = std::min(to * kAttentionBlock, keys);
      AttentionArgs here = args;
      here.then_kv_head = args.kv_head;
      if (next < chosen.size() && unit < end) here.then_position = chosen_block(chosen[next]) * block();
      if (static_cast<int64_t>(who.size()) == args.queries &&
          std::none_of(who.begin(), who.end(), sinks_only))
        attend(here, first + from * kAttentionBlock, first + stop, my.attention, state);
      else
        attend_some(here, who, first + from * kAttentionBlock, first + stop, my, state);
    }
  }

  static int64_t units_of(int64_t keys) { return (keys + kAttentionBlock - 1) / kAttentionBlock; }

 private:
  // Sums of the queries of each group, in their order: [groups, padded].
  const float* sum_groups(const float* q, int64_t groups, int64_t padded, std::vector<float>& out) const {
    grow(out, groups * padded);
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t i = 0; i < padded; ++i) {
        float sum = 0;
        for (int64_t h = 0; h < group_; ++h) sum += q[(g * group_ + h) * padded + i];
        out[static_cast<size_t>(g * padded + i)] = sum;
      }
    return out.data();
  }

  // scratch.blocks: what a query at a position sees wholly; scratch.sink_blocks: where it sees sinks only.
  void choose_one(const Slice& slice, int64_t head, int64_t position, const float* scores,
                  SparseScratch& scratch) const {
    const int64_t own = blocks_before(position);
    scratch.blocks.clear();
    scratch.sink_blocks.clear();
    if (position >= sink_tokens_) {  // a sink token of the model sees its like and nothing else
      top_blocks(scores, own, int64_t{mixer_.top_k} - 1, scratch.order, scratch.blocks);
      scratch.blocks.push_back(static_cast<uint32_t>(own));
      if (slice.block_hook != nullptr) slice.block_hook->chosen(index_, head, position, scratch.blocks);
    }
    const int64_t end = std::min(sinks_end(), end_visible(position));
    for (int64_t b = 0; b * block() < end; ++b)
      if (!std::binary_search(scratch.blocks.begin(), scratch.blocks.end(), static_cast<uint32_t>(b)))
        scratch.sink_blocks.push_back(static_cast<uint32_t>(b));
  }

  // attend() for the queries that `who` names: they and their states are moved together and back.
  void attend_some(const AttentionArgs& args, std::span<const uint64_t> who, int64_t begin, int64_t end,
                   Workspace::Thread& my, const AttentionState& state) const {
    const int64_t dim = args.geometry.padded_dim();
    SparseScratch& s = my.sparse;
    grow(s.q, static_cast<int64_t>(who.size()) * dim);
    grow(s.acc, static_cast<int64_t>(who.size()) * dim);
    s.m.clear();
    s.l.clear();
    s.lo.clear();
    s.hi.clear();
    for (size_t i = 0; i < who.size(); ++i) {
      const int64_t query = chosen_query(who[i]);
      std::copy_n(args.q + query * dim, dim, s.q.data() + static_cast<int64_t>(i) * dim);
      std::copy_n(state.acc + query * dim, dim, s.acc.data() + static_cast<int64_t>(i) * dim);
      s.m.push_back(state.m[query]);
      s.l.push_back(state.l[query]);
      s.lo.push_back(args.lo[query]);
      s.hi.push_back(sinks_only(who[i]) ? std::min(sinks_end(), args.hi[query]) : args.hi[query]);
    }
    AttentionArgs some = args;
    some.q = s.q.data();
    some.queries = static_cast<int64_t>(who.size());
    some.lo = s.lo.data();
    some.hi = s.hi.data();
    attend(some, begin, end, my.attention, {s.m.data(), s.l.data(), s.acc.data()});
    for (size_t i = 0; i < who.size(); ++i) {
      const int64_t query = chosen_query(who[i]);
      std::copy_n(s.acc.data() + static_cast<int64_t>(i) * dim, dim, state.acc + query * dim);
      state.m[query] = s.m[i];
      state.l[query] = s.l[i];
    }
  }
};

class DecodeChoose final : public SparseStage {
 public:
  using SparseStage::SparseStage;
  std::string describe() const override { return "rope+store+choose " + describe_mixer(); }
  int64_t tasks(const Step& step) const override {
    return static_cast<int64_t>(step.slices.size()) * mixer_.kv_heads;
  }
  void run(Step& step, int thread, int64_t task) const override {
    const Slice& slice = step.slices[static_cast<size_t>(task / mixer_.kv_heads)];
    const int64_t kv_head = task % mixer_.kv_heads;
    Workspace::Thread& my = step.workspace.threads[static_cast<size_t>(thread)];
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    grow(my.q, (group_ + 1) * padded);
    make_queries(step, slice.row, kv_head, padded, my.q.data());
    store_key_value(step, slice, slice.row, kv_head, my.q.data() + group_ * padded);
    const int64_t complete = (slice.position + 1) / block();
    for (int64_t b = slice.state->summaries().valid(index_); b < complete; ++b)
      store_mean(slice, kv_head, b, my.sparse);
    std::vector<uint64_t>& chosen =
        step.workspace.chosen[static_cast<size_t>(slice.row * mixer_.kv_heads + kv_head)];
    chosen.clear();
    my.sparse.positions.assign(static_cast<size_t>(group_), slice.position);
    choose(slice, kv_head, my.q.data(), my.sparse.positions, my.sparse, chosen);
  }
};

class DecodeSparse final : public SparseStage, public AttentionParts {
 public:
  using SparseStage::SparseStage;
  std::string describe() const override {
    return "attend chosen     " + describe_mixer() + ", up to " + std::to_string(kMaxParts) + " parts";
  }
  int64_t tasks(const Step& step) const override {
    int64_t count = 0;
    for (const Slice& slice : step.slices) count += mixer_.kv_heads * parts(slice.position);
    return count;
  }
  void run(Step& step, int thread, int64_t task) const override {
    for (const Slice& slice : step.slices) {
      const int64_t count = parts(slice.position), here = mixer_.kv_heads * count;
      if (task < here) return run_part(step, thread, slice, task / count, task % count, count);
      task -= here;
    }
  }
  void merge(const Step& step, int64_t row, float* out) const override {
    const Slice& slice = step.slices[static_cast<size_t>(row)];
    merge_parts(step, row, parts(slice.position), slice.state->layout().layers[index_].geometry.padded_dim(),
                out);
  }

 private:
  // Parts of a query's union of blocks: by the most that it can hold, since the choice is not known when
  // tasks are counted.
  int64_t parts(int64_t position) const {
    const int64_t own = blocks_before(position);
    const int64_t most =
        std::min(own, sink_blocks() + (mixer_.shared ? 1 : group_) * (int64_t{mixer_.top_k} - 1));
    return part_count(most * (block() / kAttentionBlock) + units_of(position + 1 - own * block()));
  }

  void run_part(Step& step, int thread, const Slice& slice, int64_t kv_head, int64_t part,
                int64_t count) const {
    Workspace& ws = step.workspace;
    Workspace::Thread& my = ws.threads[static_cast<size_t>(thread)];
    const int64_t padded = slice.state->layout().layers[index_].geometry.padded_dim();
    grow(my.q, group_ * padded);
    make_queries(step, slice.row, kv_head, padded, my.q.data());
    const AttentionState state = clear_part(ws, slice.row, kv_head, part, padded);
    my.lo.assign(static_cast<size_t>(group_), 0);
    my.hi.assign(static_cast<size_t>(group_), slice.position + 1);
    AttentionArgs args = make_args(slice, kv_head);
    args.q = my.q.data();
    args.queries = group_;
    args.lo = my.lo.data();
    args.hi = my.hi.data();
    const auto& chosen = ws.chosen[static_cast<size_t>(slice.row * mixer_.kv_heads + kv_head)];
    const int64_t units = chosen_units(chosen, slice.position);
    attend_chosen(args, chosen, units * part / count, units * (part + 1) / count, my, state);
  }

  // Units of the union; the last block is the query's own.
  int64_t chosen_units(const std::vector<uint64_t>& chosen, int64_t position) const {
    int64_t blocks = 0;
    for (size_t i = 0; i < chosen.size(); ++i)
      blocks += i == 0 || chosen_block(chosen[i]) != chosen_block(chosen[i - 1]) ? 1 : 0;
    return (blocks - 1) * (block() / kAttentionBlock) +
           units_of(position + 1 - blocks_before(position) * block());
  }
};

class PrefillMeans final : public SparseStage {
 public:
  using SparseStage::SparseStage;
  std::string describe() const override { return fmt::format("mean keys         of blocks of {}", block()); }
  int64_t tasks(const Step& step) const override {
    int64_t count = 0;
    for (const Slice& slice : step.slices) count += mixer_.kv_heads * missing(slice);
    return count;
  }
  void run(Step& step, int thread, int64_t task) const override {
    for (const Slice& slice : step.slices) {
      const int64_t here = mixer_.kv_heads * missing(slice);
      if (task < here)
        return store_mean(slice, task % mixer_.kv_heads,
                          slice.state->summaries().valid(index_) + task / mixer_.kv_heads,
                          step.workspace.threads[static_cast<size_t>(thread)].sparse);
      task -= here;
    }
  }

 private:
  int64_t missing(const Slice& slice) const {
    return (slice.position + slice.count) / block() - slice.state->summaries().valid(index_);
  }
};

class PrefillSparse final : public SparseStage {
 public:
  using SparseStage::SparseStage;
  std::string describe() const override {
    return fmt::format("choose+attend     {}, {} tokens a task", describe_mixer(), kQueryRows);
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
    std::vector<uint64_t>& chosen = my.sparse.chosen;
    chosen.clear();
    my.sparse.positions.clear();
    for (int64_t i = 0; i < args.queries; ++i)
      my.sparse.positions.push_back(rows.slice->position + rows.first + i / group_);
    choose(*rows.slice, rows.kv_head, my.q.data(), my.sparse.positions, my.sparse, chosen);
    attend_chosen(args, chosen, 0, std::numeric_limits<int64_t>::max(), my, state);
    write_outputs(step, rows, my);
  }
};

}  // namespace

DecodeAttentionStage make_decode_sparse_stage(const ModelImpl& model, size_t mixer) {
  auto stage = std::make_unique<DecodeSparse>(model, mixer);
  const AttentionParts& parts = *stage;
  return {std::move(stage), parts};
}
StagePtr make_decode_choose_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<DecodeChoose>(model, mixer);
}
StagePtr make_prefill_means_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrefillMeans>(model, mixer);
}
StagePtr make_prefill_sparse_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrefillSparse>(model, mixer);
}

void size_sparse(const ModelImpl& model, const Step& step, bool decode) {
  if (!decode) return;
  size_t lists = 0;
  for (size_t i = 0; i < model.mixers.size(); ++i)
    if (model.mixer_config(i).type == MixerType::sparse)
      lists = std::max<size_t>(lists, model.mixer_config(i).kv_heads);
  lists *= static_cast<size_t>(step.rows());
  if (step.workspace.chosen.size() < lists) step.workspace.chosen.resize(lists);
}

}  // namespace mneme
