#include "simd/block_scores.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/block_scores.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "simd/score_block-inl.h"
// clang-format on

#include <algorithm>
#include <bit>
#include <functional>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {

// sums[c][p] += the 16-position groups of keys [dim][16] of one page
template <class T>
HWY_INLINE void add_keys(const T* k, const float* scale, int64_t positions, int64_t dim, float* sums) {
  for (int64_t at = 0; at < positions; at += 16, k += 16 * dim) {
    for (int64_t p = 0; p < 16; p += kN) {
      if (scale != nullptr) {
        const V s = load(scale + at + p);
        for (int64_t i = p; i < 16 * dim; i += 16)
          hn::StoreU(hn::MulAdd(load(k + i), s, load(sums + i)), d, sums + i);
      } else {
        for (int64_t i = p; i < 16 * dim; i += 16)
          hn::StoreU(hn::Add(load(k + i), load(sums + i)), d, sums + i);
      }
    }
  }
}

template <class T>
void mean_typed(const KeyRange& range, float* sums) {
  const KvGeometry& g = range.geometry;
  const int64_t dim = g.padded_dim(), end = range.begin + range.keys;
  std::fill_n(sums, 16 * dim, 0.0f);
  for (int64_t p = range.begin; p < end;) {
    const int64_t in_page = p % kPagePositions, n = std::min(kPagePositions - in_page, end - p);
    const std::byte* head =
        range.pages[p / kPagePositions] + range.page_offset + range.kv_head * g.head_bytes();
    const float* scale = g.format == KvFormat::int8
                             ? reinterpret_cast<const float*>(head + 2 * g.k_bytes()) + in_page
                             : nullptr;
    add_keys(reinterpret_cast<const T*>(head) + in_page * dim, scale, n, dim, sums);
    p += n;
  }
}

void mean_any(const KeyRange& range, float* sums) {
  switch (range.geometry.format) {
    case KvFormat::f16:
      return mean_typed<hwy::float16_t>(range, sums);
    case KvFormat::int8:
      return mean_typed<int8_t>(range, sums);
    case KvFormat::f32:
      return mean_typed<float>(range, sums);
  }
}

void scores_any(const float* q, int64_t queries, int64_t dim, const float* const* tiles, int64_t head_offset,
                int64_t blocks, float* scores, int64_t stride) {
  for (int64_t b = 0; b < blocks; b += kTileBlocks)
    score_queries(q, queries, dim, tiles[b / kTileBlocks] + head_offset, scores + b, stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(mean_any);
HWY_EXPORT(scores_any);

// Floats in their order as unsigned integers.
uint32_t ordered(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

}  // namespace

void block_mean(const KeyRange& range, std::vector<float>& scratch, float* tile_head, int64_t lane) {
  const int64_t dim = range.geometry.padded_dim();
  if (static_cast<int64_t>(scratch.size()) < 16 * dim) scratch.resize(static_cast<size_t>(16 * dim));
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(mean_any)(range, scratch.data());
  const float count = static_cast<float>(range.keys);
  for (int64_t c = 0; c < dim; ++c) {
    float* sums = scratch.data() + 16 * c;
    for (int64_t width = 8; width > 0; width /= 2)
      for (int64_t i = 0; i < width; ++i) sums[i] += sums[i + width];
    tile_head[c * kTileBlocks + lane] = sums[0] / count;
  }
}

void block_mean_plain(const KeyRange& range, double* mean) {
  const KvGeometry& g = range.geometry;
  std::vector<float> k(static_cast<size_t>(g.head_dim)), v(k.size());
  std::fill_n(mean, g.head_dim, 0.0);
  for (int64_t p = range.begin; p < range.begin + range.keys; ++p) {
    load_kv(g, range.pages[p / kPagePositions] + range.page_offset, range.kv_head, p % kPagePositions,
            k.data(), v.data());
    for (int64_t c = 0; c < g.head_dim; ++c)
      mean[c] += double{k[static_cast<size_t>(c)]} / static_cast<double>(range.keys);
  }
}

void block_scores(const float* q, int64_t queries, int64_t padded_dim, const float* const* tiles,
                  int64_t head_offset, int64_t blocks, float* scores, int64_t stride) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(scores_any)(q, queries, padded_dim, tiles, head_offset, blocks, scores, stride);
}

void block_scores_plain(const float* q, int64_t padded_dim, const float* const* tiles, int64_t head_offset,
                        int64_t blocks, double* scores) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float* mean = tiles[b / kTileBlocks] + head_offset + b % kTileBlocks;
    scores[b] = 0;
    for (int64_t c = 0; c < padded_dim; ++c) scores[b] += double{q[c]} * mean[c * kTileBlocks];
  }
}

void top_blocks(const float* scores, int64_t blocks, int64_t k, std::vector<uint64_t>& scratch,
                std::vector<uint32_t>& out) {
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  if (k >= blocks) {
    for (int64_t b = 0; b < blocks; ++b) out.push_back(static_cast<uint32_t>(b));
    return;
  }
  if (k <= 0) return;
  // Score above, block below with its bits turned over: one comparison orders both.
  scratch.resize(static_cast<size_t>(blocks));
  for (int64_t b = 0; b < blocks; ++b)
    scratch[static_cast<size_t>(b)] = uint64_t{ordered(scores[b])} << 32 | ~static_cast<uint32_t>(b);
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<>());
  for (int64_t i = 0; i < k; ++i) out.push_back(~static_cast<uint32_t>(scratch[static_cast<size_t>(i)]));
  std::sort(out.begin() + first, out.end());
}

}  // namespace mneme
#endif
