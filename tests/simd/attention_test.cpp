#include "simd/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "core/huge_buffer.h"
#include "simd/isa.h"

namespace mneme::attention_test {
namespace {

struct Case {
  KvFormat format;
  int64_t head_dim, queries, positions, window, sinks;
  float softcap;
  bool sink_logit;
};

class AttentionOnEveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = active_isa();
    set_active_isa(GetParam());
  }
  void TearDown() override { set_active_isa(before_); }
  Isa before_ = Isa::portable;
};

// Runs attend() in `parts` pieces and compares with a double-precision softmax over the cache's own (rounded)
// values.
void check(const Case& c, int64_t parts) {
  const KvGeometry g{c.format, 2, c.head_dim};
  const int64_t dim = g.padded_dim(), pages = (c.positions + kPagePositions - 1) / kPagePositions;
  std::mt19937 rng(static_cast<uint32_t>(c.positions * 31 + c.queries));
  std::normal_distribution<float> normal;
  const HugeBuffer memory(static_cast<uint64_t>(pages * g.page_bytes()));
  std::vector<const std::byte*> page_list;
  for (int64_t p = 0; p < pages; ++p) page_list.push_back(memory.data() + p * g.page_bytes());
  std::vector<std::vector<float>> k, v;
  for (int64_t p = 0; p < c.positions; ++p) {
    std::vector<float> key(static_cast<size_t>(c.head_dim)), value(static_cast<size_t>(c.head_dim));
    for (auto& x : key) x = normal(rng);
    for (auto& x : value) x = normal(rng);
    std::byte* page = memory.data() + p / kPagePositions * g.page_bytes();
    store_kv(g, page, 1, p % kPagePositions, key.data(), value.data());
    load_kv(g, page, 1, p % kPagePositions, key.data(), value.data());
    k.push_back(key);
    v.push_back(value);
  }
  std::vector<float> q(static_cast<size_t>(c.queries * dim), 0.0f);
  std::vector<int64_t> lo, hi;
  for (int64_t i = 0; i < c.queries; ++i) {
    for (int64_t e = 0; e < c.head_dim; ++e)
      q[static_cast<size_t>(i * dim + e)] = normal(rng) * 2.0f / std::sqrt(static_cast<float>(c.head_dim));
    hi.push_back(std::max<int64_t>(1, c.positions - i % 7));
    lo.push_back(c.window > 0 ? std::max<int64_t>(0, hi.back() - c.window) : 0);
  }
  const auto n = static_cast<size_t>(parts * c.queries);
  std::vector<float> m(n, -std::numeric_limits<float>::infinity()), l(n, 0.0f),
      acc(n * static_cast<size_t>(dim), 0.0f);
  AttentionScratch scratch;
  const AttentionArgs args{g,         1,         page_list.data(), 0,       q.data(),
                           c.queries, lo.data(), hi.data(),        c.sinks, c.softcap};
  const int64_t blocks = (c.positions + kAttentionBlock - 1) / kAttentionBlock;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = blocks * part / parts * kAttentionBlock;
    const int64_t end = std::min(c.positions, blocks * (part + 1) / parts * kAttentionBlock);
    if (begin >= end) continue;
    attend(args, begin, end, scratch,
           {&m[static_cast<size_t>(part * c.queries)], &l[static_cast<size_t>(part * c.queries)],
            &acc[static_cast<size_t>(part * c.queries * dim)]});
  }
  const float sink = 0.7f;
  for (int64_t i = 0; i < c.queries; ++i) {
    std::vector<float> out(static_cast<size_t>(c.head_dim));
    merge_attention(
        {&m[static_cast<size_t>(i)], &l[static_cast<size_t>(i)], &acc[static_cast<size_t>(i * dim)]}, parts,
        c.queries, dim, c.head_dim, c.sink_logit ? &sink : nullptr, out.data());
    std::vector<double> expected(static_cast<size_t>(c.head_dim), 0.0);
    double total = c.sink_logit ? std::exp(double{sink}) : 0.0;
    for (int64_t p = 0; p < hi[static_cast<size_t>(i)]; ++p) {
      if (p < lo[static_cast<size_t>(i)] && p >= c.sinks) continue;
      double score = 0;
      for (int64_t e = 0; e < c.head_dim; ++e)
        score +=
            double{q[static_cast<size_t>(i * dim + e)]} * k[static_cast<size_t>(p)][static_cast<size_t>(e)];
      if (c.softcap > 0) score = c.softcap * std::tanh(score / c.softcap);
      const double weight = std::exp(score);
      total += weight;
      for (int64_t e = 0; e < c.head_dim; ++e)
        expected[static_cast<size_t>(e)] += weight * v[static_cast<size_t>(p)][static_cast<size_t>(e)];
    }
    for (int64_t e = 0; e < c.head_dim; ++e)
      ASSERT_NEAR(out[static_cast<size_t>(e)], expected[static_cast<size_t>(e)] / total, 2e-5)
          << "query " << i << " dim " << e << " of " << c.head_dim << ", " << c.positions << " positions";
  }
}

TEST_P(AttentionOnEveryIsa, EqualsDoublePrecisionSoftmax) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8}) {
    for (const int64_t head_dim : {16, 20, 64, 128, 256}) {
      for (const int64_t queries : {1, 2, 3, 4, 5, 6, 7, 8, 9, 26})
        check({format, head_dim, queries, 70, 0, 0, 0, false}, 1);
    }
    for (const int64_t positions : {1, 15, 16, 17, 63, 64, 65, 300, 777}) {
      check({format, 64, 4, positions, 0, 0, 0, false}, 1);
      check({format, 32, 5, positions, 0, 0, 0, true}, 3);
      check({format, 64, 2, positions, 40, 0, 0, false}, 2);
      check({format, 64, 13, positions, 40, 4, 0, false}, 1);
      check({format, 64, 2, positions, 0, 0, 2.5f, true}, 1);
    }
  }
}

// A cache of several pages and heads, and a state of some queries over it.
struct Cached {
  KvGeometry geometry;
  HugeBuffer memory;
  std::vector<const std::byte*> pages;

  Cached(KvFormat format, int64_t head_dim, int64_t positions) : geometry{format, 2, head_dim} {
    const int64_t count = (positions + kPagePositions - 1) / kPagePositions;
    memory = HugeBuffer(static_cast<uint64_t>(count * geometry.page_bytes()));
    for (int64_t p = 0; p < count; ++p) pages.push_back(memory.data() + p * geometry.page_bytes());
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    std::vector<float> k(static_cast<size_t>(head_dim)), v(k);
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t head = 0; head < 2; ++head) {
        for (float& x : k) x = normal(rng);
        for (float& x : v) x = normal(rng);
        store_kv(geometry, memory.data() + p / kPagePositions * geometry.page_bytes(), head,
                 p % kPagePositions, k.data(), v.data());
      }
  }
};

struct Attended {
  std::vector<float> m, l, acc;
  bool operator==(const Attended&) const = default;
};

// attend() of q [queries, padded_dim] over [0, end), in two calls of one thread; the first says where the
// second begins and the second goes to `then_position`, if `hints`.
Attended attended(const Cached& cache, const std::vector<float>& q, int64_t end, bool hints,
                  int64_t then_position = -1) {
  const auto queries = static_cast<int64_t>(q.size()) / cache.geometry.padded_dim();
  const auto n = static_cast<size_t>(queries);
  Attended out{std::vector<float>(n, -std::numeric_limits<float>::infinity()), std::vector<float>(n, 0.0f),
               std::vector<float>(q.size(), 0.0f)};
  const std::vector<int64_t> lo(n, 0), hi(n, end);
  AttentionArgs args;
  args.geometry = cache.geometry;
  args.kv_head = 1;
  args.pages = cache.pages.data();
  args.q = q.data();
  args.queries = queries;
  args.lo = lo.data();
  args.hi = hi.data();
  AttentionScratch scratch;
  const int64_t half = end / 2 / kAttentionBlock * kAttentionBlock;
  if (hints) args.then_position = half, args.then_kv_head = 1;
  attend(args, 0, half, scratch, {out.m.data(), out.l.data(), out.acc.data()});
  if (hints) args.then_position = then_position, args.then_kv_head = 0;
  attend(args, half, end, scratch, {out.m.data(), out.l.data(), out.acc.data()});
  return out;
}

std::vector<float> some_queries(int64_t queries, int64_t dim) {
  std::mt19937 rng(static_cast<uint32_t>(queries));
  std::normal_distribution<float> normal(0, 0.2f);
  std::vector<float> q(static_cast<size_t>(queries * dim));
  for (float& x : q) x = normal(rng);
  return q;
}

TEST_P(AttentionOnEveryIsa, WhereTheThreadGoesNextChangesNothing) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8})
    for (const int64_t dim : {16, 64})
      for (const int64_t end : {200, 600}) {
        Cached cache(format, dim, 600);
        const std::vector<float> q = some_queries(4, dim);
        const Attended expected = attended(cache, q, end, false);
        for (const int64_t then : {int64_t{-1}, int64_t{0}, int64_t{70}, int64_t{576}})
          EXPECT_EQ(attended(cache, q, end, true, then), expected) << dim << " " << end << " " << then;
        const Cached& seen = cache;
        cache.pages.push_back(nullptr);  // a page that a window has left
        EXPECT_EQ(attended(seen, q, end, true, 768), expected);
      }
}

// However many queries share the reading of keys, each gets the same bits: what forks and batches rely on.
TEST_P(AttentionOnEveryIsa, AQueryDoesNotDependOnItsCompany) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8})
    for (const int64_t dim : {16, 64, 80})
      for (const int64_t queries : {2, 3, 4, 5, 6, 7, 8, 11, 16}) {
        const Cached cache(format, dim, 330);
        const std::vector<float> q = some_queries(queries, dim);
        const Attended all = attended(cache, q, 330, true);
        for (int64_t i = 0; i < queries; ++i) {
          const std::vector<float> one(q.begin() + i * dim, q.begin() + (i + 1) * dim);
          const Attended alone = attended(cache, one, 330, true);
          const auto at = static_cast<size_t>(i);
          EXPECT_EQ(alone.m[0], all.m[at]) << queries;
          EXPECT_EQ(alone.l[0], all.l[at]) << queries;
          EXPECT_EQ(alone.acc, std::vector<float>(all.acc.begin() + i * dim, all.acc.begin() + (i + 1) * dim))
              << queries << " queries, " << i << ", dim " << dim;
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionOnEveryIsa,
                         testing::ValuesIn(supported_isas().begin(), supported_isas().end()),
                         [](const auto& isa) {
                           std::string name(to_string(isa.param));
                           for (auto& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace mneme::attention_test
