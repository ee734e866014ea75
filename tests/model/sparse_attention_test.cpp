// The stages of block-sparse attention beside a double-precision oracle that knows no pages, parts or
// threads: it reads the keys back from the cache, averages blocks, sorts their scores and takes one softmax
// over what it chose.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "model/attention_stage.h"

namespace mneme::sparse_attention_test {
namespace {

struct Case {
  KvFormat format = KvFormat::f32;
  uint32_t block = 64, top_k = 3;
  uint32_t heads = 6, kv_heads = 2, head_dim = 16;
  uint32_t sink_tokens = 0;
  double softcap = 0;
  bool sink_logits = false;
  uint32_t sinks = 0;
  bool shared = false;
};

// A model of one mixer and nothing else; queries, keys and values are put where the projections would.
class Harness {
 public:
  explicit Harness(const Case& c, MixerType type = MixerType::sparse, int threads = 2)
      : case_(c), threads_(threads) {
    LayerConfig layer;
    layer.mixer.type = type;
    layer.mixer.heads = c.heads;
    layer.mixer.kv_heads = c.kv_heads;
    layer.mixer.head_dim = c.head_dim;
    layer.mixer.softcap = c.softcap;
    layer.mixer.sink_logits = c.sink_logits;
    if (type == MixerType::sparse) {
      layer.mixer.block = c.block;
      layer.mixer.top_k = c.top_k;
      layer.mixer.sinks = c.sinks;
      layer.mixer.shared = c.shared;
    }
    model_.config.layers = {layer};
    model_.config.sink_tokens = c.sink_tokens;
    model_.layers.resize(1);
    model_.layers[0].mixers.resize(1);
    if (c.sink_logits) model_.layers[0].mixers[0].sinks.assign(c.heads, 0.4f);
    model_.mixers = {{0, 0}};
    model_.ropes.resize(1);  // rotates nothing
    layout_ = std::make_shared<CacheLayout>(make_cache_layout(model_.config, c.format, 16));
    state_ = std::make_unique<SequenceState>(layout_);
    if (type == MixerType::sparse) {
      decode_.push_back(make_decode_choose_stage(model_, 0));
      parts_ = add(make_decode_sparse_stage(model_, 0));
      prefill_.push_back(make_prefill_store_stage(model_, 0));
      prefill_.push_back(make_prefill_means_stage(model_, 0));
      prefill_.push_back(make_prefill_sparse_stage(model_, 0));
    } else {
      parts_ = add(make_decode_attention_stage(model_, 0));
      prefill_.push_back(make_prefill_store_stage(model_, 0));
      prefill_.push_back(make_prefill_attention_stage(model_, 0));
    }
  }

  /// Runs rows [count, q + 2 kv] after what is there; returns their attention outputs [count, heads *
  /// head_dim].
  std::vector<float> append(const float* rows, int64_t count) {
    const std::vector<TokenId> ids(static_cast<size_t>(count));
    const bool decode = count == 1;
    Slice slice{state_.get(), 0, count, state_->position()};
    Step step{model_, workspace_, {&slice, 1}, ids, {}, nullptr, {}};
    workspace_.threads.resize(static_cast<size_t>(threads_));
    size_attention(model_, step, decode);
    size_sparse(model_, step, decode);
    std::copy_n(rows, count * width(), workspace_.qkv.data());
    state_->reserve(count);
    for (const StagePtr& stage : decode ? decode_ : prefill_)
      for (int64_t task = stage->tasks(step) - 1; task >= 0; --task)  // any order will do
        stage->run(step, static_cast<int>(task % threads_), task);
    std::vector<float> out(static_cast<size_t>(count * q_width()));
    if (decode)
      parts_->merge(step, 0, out.data());
    else
      std::copy_n(workspace_.attention.data(), out.size(), out.data());
    state_->advance(count);
    return out;
  }

  SequenceState& state() { return *state_; }
  int64_t q_width() const { return int64_t{case_.heads} * case_.head_dim; }
  int64_t width() const { return q_width() + 2 * int64_t{case_.kv_heads} * case_.head_dim; }

 private:
  const AttentionParts* add(DecodeAttentionStage stage) {
    decode_.push_back(std::move(stage.stage));
    return &stage.parts;
  }
  Case case_;
  int threads_;
  ModelImpl model_;
  std::shared_ptr<const CacheLayout> layout_;
  std::unique_ptr<SequenceState> state_;
  Workspace workspace_;
  std::vector<StagePtr> decode_, prefill_;
  const AttentionParts* parts_ = nullptr;
};

// Keys of neighbouring positions point the same way, as in text; else all means would be nearly zero.
std::vector<float> random_rows(const Harness& h, int64_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(count * h.width())), drift(static_cast<size_t>(h.width()));
  for (int64_t r = 0; r < count; ++r) {
    if (r % 37 == 0)
      for (auto& x : drift) x = normal(rng);
    for (int64_t i = 0; i < h.width(); ++i)
      rows[static_cast<size_t>(r * h.width() + i)] = 0.6f * normal(rng) + drift[static_cast<size_t>(i)];
  }
  return rows;
}

// Output of one query head at a position; `choosers`: the sum of the queries that choose together. `keys`,
// `values`: [position + 1][head_dim], as the cache rounds them.
std::vector<double> oracle(const Case& c, const float* q, const std::vector<float>& choosers,
                           int64_t position, const std::vector<std::vector<float>>& keys,
                           const std::vector<std::vector<float>>& values) {
  const auto dim = static_cast<size_t>(c.head_dim);
  const auto block = static_cast<int64_t>(c.block), own = position / block;
  const double scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
  const auto dot = [&](const float* a, const auto& k) {
    double sum = 0;
    for (size_t i = 0; i < dim; ++i) sum += scale * double{a[i]} * k[i];
    return sum;
  };
  std::vector<std::pair<double, int64_t>> scores;
  std::vector<bool> seen(static_cast<size_t>(own + 1), false);
  for (int64_t b = 0; b < own; ++b) {
    std::vector<double> mean(dim, 0.0);
    for (int64_t p = b * block; p < (b + 1) * block; ++p)
      for (size_t i = 0; i < dim; ++i)
        mean[i] += double{keys[static_cast<size_t>(p)][i]} / static_cast<double>(block);
    scores.emplace_back(-dot(choosers.data(), mean), b);
  }
  std::sort(scores.begin(), scores.end());
  for (size_t i = 0; i < std::min<size_t>(scores.size(), c.top_k - 1); ++i)
    seen[static_cast<size_t>(scores[i].second)] = true;
  seen[static_cast<size_t>(own)] = true;
  double total = c.sink_logits ? std::exp(double{0.4f}) : 0;
  std::vector<double> out(dim, 0.0);
  const auto sinks = static_cast<int64_t>(c.sink_tokens);  // these see each other, and all others see them
  for (int64_t p = 0; p <= std::max(position, sinks - 1); ++p) {
    const bool chosen = position >= sinks && seen[static_cast<size_t>(p / block)];
    const bool sink = p < sinks || (p < sinks + int64_t{c.sinks} && p <= position && position >= sinks);
    if (!sink && !chosen) continue;
    double score = dot(q, keys[static_cast<size_t>(p)]);
    if (c.softcap > 0) score = c.softcap * std::tanh(score / c.softcap);
    total += std::exp(score);
    for (size_t i = 0; i < dim; ++i) out[i] += std::exp(score) * double{values[static_cast<size_t>(p)][i]};
  }
  for (double& x : out) x /= total;
  return out;
}

void expect_oracle(const Case& c, Harness& h, const std::vector<float>& rows, const std::vector<float>& out,
                   int64_t first) {
  const int64_t count = static_cast<int64_t>(rows.size()) / h.width();
  const KvGeometry& g = h.state().layout().layers[0].geometry;
  const auto group = c.heads / c.kv_heads;
  for (uint32_t kv = 0; kv < c.kv_heads; ++kv) {
    std::vector<std::vector<float>> keys(static_cast<size_t>(count), std::vector<float>(c.head_dim)),
        values = keys;
    for (int64_t p = 0; p < count; ++p)
      load_kv(g, h.state().page(0, p), kv, p % kPagePositions, keys[static_cast<size_t>(p)].data(),
              values[static_cast<size_t>(p)].data());
    for (int64_t p = first; p < count; ++p) {
      if (p % 5 > 0 && p % c.block > 1 && p % c.block + 1 < c.block)
        continue;  // some, and those at edges of blocks
      for (uint32_t head = kv * group; head < (kv + 1) * group; ++head) {
        const float* row = rows.data() + p * h.width();
        std::vector<float> choosers(c.head_dim, 0.0f);
        for (uint32_t other = c.shared ? kv * group : head; other < (c.shared ? (kv + 1) * group : head + 1);
             ++other)
          for (size_t i = 0; i < c.head_dim; ++i) choosers[i] += row[other * c.head_dim + i];
        const auto expected = oracle(c, row + head * c.head_dim, choosers, p, keys, values);
        for (size_t i = 0; i < c.head_dim; ++i)
          ASSERT_NEAR(out[static_cast<size_t>((p - first) * h.q_width()) + head * c.head_dim + i],
                      expected[i], 3e-5)
              << "position " << p << " head " << head << " dim " << i;
      }
    }
  }
}

// Appends rows in pieces of these sizes, the last one again and again.
std::vector<float> run(Harness& h, const std::vector<float>& rows, const std::vector<int64_t>& pieces) {
  std::vector<float> out;
  const int64_t count = static_cast<int64_t>(rows.size()) / h.width();
  size_t piece = 0;
  for (int64_t done = 0; done < count;) {
    const int64_t n = std::min(pieces[std::min(piece++, pieces.size() - 1)], count - done);
    const auto part = h.append(rows.data() + done * h.width(), n);
    out.insert(out.end(), part.begin(), part.end());
    done += n;
  }
  return out;
}

TEST(SparseAttention, PrefillAndDecodeEqualTheOracle) {
  const Case cases[] = {{},
                        {KvFormat::f16, 64, 1},
                        {KvFormat::int8, 64, 2},
                        {KvFormat::f32, 128, 2, 3, 1, 20},
                        {KvFormat::f16, 64, 4, 8, 8, 32},
                        {KvFormat::int8, 192, 2, 16, 1, 64},
                        {KvFormat::f32, 64, 3, 6, 2, 16, 70},
                        {KvFormat::f32, 64, 3, 4, 2, 16, 0, 2.5, true},
                        {KvFormat::f16, 64, 2, 6, 2, 16, 0, 0, false, 4, false},
                        {KvFormat::int8, 64, 3, 6, 2, 16, 0, 0, false, 0, true},
                        {KvFormat::f32, 64, 2, 8, 2, 16, 30, 0, false, 50, true}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "block " << c.block << " top " << c.top_k << " heads " << c.heads
                                    << "/" << c.kv_heads << " of " << c.head_dim);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{900}, {250, 1}, {73, 130, 1, 64}}) {
      Harness h(c);
      const auto rows = random_rows(h, 560, 5);
      expect_oracle(c, h, rows, run(h, rows, pieces), 0);
    }
  }
}

TEST(SparseAttention, EveryBlockChosenIsFullAttentionBitForBit) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8}) {
    for (const auto& [block, top_k] : {std::pair{64u, 20u}, {1024u, 1u}, {192u, 4u}}) {
      for (const int64_t piece : {700, 33, 1}) {
        const Case c{format, block, top_k};
        Harness sparse(c), full(c, MixerType::full);
        const auto rows = random_rows(sparse, 700, 9);
        ASSERT_EQ(run(sparse, rows, {piece}), run(full, rows, {piece}))
            << "block " << block << " pieces " << piece;
      }
    }
  }
}

TEST(SparseAttention, PiecesAndThreadsChangeNothingAtPrefill) {
  const Case c{KvFormat::int8, 64, 3};
  Harness whole(c, MixerType::sparse, 1);
  const auto rows = random_rows(whole, 700, 11);
  const auto expected = run(whole, rows, {700});
  for (const int64_t piece : {2, 17, 64, 200}) {
    Harness h(c, MixerType::sparse, 3);
    ASSERT_EQ(run(h, rows, {piece}), expected) << "pieces of " << piece;
  }
}

TEST(SparseAttention, ForkRollbackAndRestoreChooseAsTheStraightRun) {
  const Case c{KvFormat::f16, 64, 3};
  Harness h(c);
  const auto rows = random_rows(h, 700, 13), other = random_rows(h, 700, 14);
  const auto at = [&](int64_t row) { return rows.data() + row * h.width(); };
  const auto expected = [&](int64_t first, int64_t count) {
    Harness straight(c);
    straight.append(at(0), first);
    return straight.append(at(first), count);
  };
  // A fork writes other keys into the blocks that both have unfinished; rollback crosses a block's end.
  h.append(at(0), 600);
  const SequenceState saved = h.state();
  h.append(other.data(), 100);
  h.state() = saved;
  EXPECT_EQ(h.append(at(600), 100), expected(600, 100));
  h.state().rollback(100);
  h.append(other.data(), 90);
  h.state().rollback(90);
  EXPECT_EQ(h.append(at(600), 41), expected(600, 41));
  // Restored keys come without means; decode has to make them, as prefill has.
  for (const int64_t count : {1, 50}) {
    h.state().restore(600, 0, saved.blocks(), {}, {});
    EXPECT_EQ(h.append(at(600), count), expected(600, count)) << count << " rows after a restore";
  }
}

TEST(SparseAttention, AnUnfinishedPassLeavesNoMeans) {
  const Case c{};
  Harness h(c), straight(c);
  const auto rows = random_rows(h, 400, 15), other = random_rows(h, 200, 16);
  h.append(rows.data(), 200);
  const SequenceState before = h.state();
  h.append(other.data(), 200);  // completes blocks with other keys ...
  h.state().rollback(200);
  straight.append(rows.data(), 200);
  EXPECT_EQ(h.append(rows.data() + 200 * h.width(), 200),
            straight.append(rows.data() + 200 * h.width(), 200));
  EXPECT_EQ(h.state().summaries().valid(0), 400 / 64);
}

}  // namespace
}  // namespace mneme::sparse_attention_test
