#include "simd/recurrence_chunk.h"

// Highway re-includes this file for every target, so these includes have an order of their own.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "simd/recurrence_chunk.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <algorithm>

#include "simd/highway_isa.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kStateColumns>;
using V = hn::Vec<D>;
constexpr D d;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(d));

// out[r, 0..N vectors) += sum_i x[r, i] y[i, ...] for kRows rows; x(r, i) = x[r * row_step + i * step].
template <int kRows, int N>
HWY_INLINE void multiply_tile(const float* x, int64_t row_step, int64_t step, int64_t inner, const float* y,
                              int64_t y_stride, float* out, int64_t out_stride) {
  V sum[kRows * N];
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < N; ++j) sum[r * N + j] = hn::LoadU(d, out + r * out_stride + j * kLanes);
  for (int64_t i = 0; i < inner; ++i) {
    V row[N];
    for (int j = 0; j < N; ++j) row[j] = hn::LoadU(d, y + i * y_stride + j * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const V a = hn::Set(d, x[r * row_step + i * step]);
      for (int j = 0; j < N; ++j) sum[r * N + j] = hn::MulAdd(a, row[j], sum[r * N + j]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < N; ++j) hn::StoreU(sum[r * N + j], d, out + r * out_stride + j * kLanes);
}

template <int N>
void multiply_columns(int64_t rows, const float* x, int64_t row_step, int64_t step, int64_t inner,
                      const float* y, int64_t y_stride, float* out, int64_t out_stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    multiply_tile<4, N>(x + r * row_step, row_step, step, inner, y, y_stride, out + r * out_stride,
                        out_stride);
  for (; r < rows; ++r)
    multiply_tile<1, N>(x + r * row_step, row_step, step, inner, y, y_stride, out + r * out_stride,
                        out_stride);
}

// out [rows, columns] += x [rows, inner] y [inner, columns], columns a multiple of kStateColumns.
void multiply_add(int64_t rows, int64_t inner, int64_t columns, const float* x, int64_t row_step,
                  int64_t step, const float* y, int64_t y_stride, float* out, int64_t out_stride) {
  int64_t c = 0;
  for (; c + 2 * kLanes <= columns; c += 2 * kLanes)
    multiply_columns<2>(rows, x, row_step, step, inner, y + c, y_stride, out + c, out_stride);
  for (; c < columns; c += kLanes)
    multiply_columns<1>(rows, x, row_step, step, inner, y + c, y_stride, out + c, out_stride);
}

// Buffers of a chunk. `width`: dim rounded up, zero behind dim. A query row is one head of one token.
struct Chunk {
  const RecurrenceShape& shape;
  const RecurrenceTokens& tokens;
  int64_t first, count, width;
  float* queries;   // [count, group, width]: q times the decays since the start of the chunk
  float* local;     // [count, group, width]: q times the decays since the start of its sub-block
  float* keys;      // [count, width]: k decayed to the end of the last sub-block that was seen
  float* products;  // [width]: decays since the start of the chunk
  float* scores;    // [count, group, kChunkTokens]: A
  const float* update(int64_t t) const { return tokens.update + (first + t) * tokens.update_stride; }
};

HWY_INLINE void multiply_into(float* x, const float* factor, int64_t width) {
  for (int64_t c = 0; c < width; c += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, x + c), hn::LoadU(d, factor + c)), d, x + c);
}

HWY_INLINE float dot(const float* a, const float* b, int64_t width) {
  V sum = hn::Zero(d);
  for (int64_t c = 0; c < width; c += kLanes) sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// Scores of tokens [begin, end), one sub-block, against itself and against every key before it.
void score_sub_block(const Chunk& chunk, int64_t begin, int64_t end, float* decay, float* block_product,
                     float* transposed) {
  const int64_t dim = chunk.shape.dim, group = chunk.shape.group, width = chunk.width;
  std::fill_n(block_product, width, 1.0f);
  for (int64_t t = begin; t < end; ++t) {
    const float* update = chunk.update(t);
    std::copy_n(update + chunk.shape.decay_offset(), dim, decay);
    multiply_into(block_product, decay, width);
    multiply_into(chunk.products, decay, width);
    for (int64_t s = begin; s < t; ++s) multiply_into(chunk.keys + s * width, decay, width);
    std::copy_n(update + chunk.shape.k_offset(), dim, chunk.keys + t * width);
    for (int64_t h = 0; h < group; ++h) {
      const int64_t row = t * group + h;
      const float* q = chunk.tokens.q + (chunk.first + t) * chunk.tokens.q_stride + h * dim;
      float *local = chunk.local + row * width, *far = chunk.queries + row * width;
      std::copy_n(q, dim, local);
      std::copy_n(local, width, far);
      for (int64_t s = begin; s <= t; ++s)
        chunk.scores[row * kChunkTokens + s] = dot(local, chunk.keys + s * width, width);
      multiply_into(local, block_product, width);
      multiply_into(far, chunk.products, width);
    }
  }
  if (begin > 0) {
    for (int64_t s = 0; s < begin; ++s)
      for (int64_t c = 0; c < dim; ++c) transposed[c * kChunkTokens + s] = chunk.keys[s * width + c];
    multiply_add((end - begin) * group, dim, begin, chunk.local + begin * group * width, width, 1, transposed,
                 kChunkTokens, chunk.scores + begin * group * kChunkTokens, kChunkTokens);
    for (int64_t s = 0; s < begin; ++s) multiply_into(chunk.keys + s * width, block_product, width);
  }
}

void run_chunk(const Chunk& chunk, ChunkScratch& scratch, float* state) {
  const RecurrenceShape& shape = chunk.shape;
  const int64_t dim = shape.dim, columns = shape.columns(), rows = chunk.count * shape.group;
  float *decay = scratch.decayed.data(), *block = decay + chunk.width, *transposed = block + chunk.width;
  std::fill_n(chunk.products, chunk.width, 1.0f);
  std::fill_n(chunk.scores, rows * kChunkTokens, 0.0f);
  for (int64_t begin = 0; begin < chunk.count; begin += kSubBlockTokens)
    score_sub_block(chunk, begin, std::min(begin + kSubBlockTokens, chunk.count), decay, block, transposed);
  float* y = chunk.local;  // read for the last time above
  std::fill_n(y, rows * columns, 0.0f);
  const float* v = chunk.update(0);
  multiply_add(rows, dim, columns, chunk.queries, chunk.width, 1, state, columns, y, columns);
  for (int64_t begin = 0; begin < chunk.count; begin += kSubBlockTokens) {  // no token after the sub-block
    const int64_t end = std::min(begin + kSubBlockTokens, chunk.count);
    multiply_add((end - begin) * shape.group, end, columns, chunk.scores + begin * shape.group * kChunkTokens,
                 kChunkTokens, 1, v, chunk.tokens.update_stride, y + begin * shape.group * columns, columns);
  }
  for (int64_t t = 0; t < chunk.count; ++t)
    for (int64_t h = 0; h < shape.group; ++h)
      std::copy_n(y + (t * shape.group + h) * columns, dim,
                  chunk.tokens.y + (chunk.first + t) * chunk.tokens.y_stride + h * dim);
  for (int64_t r = 0; r < dim; ++r)
    for (int64_t c = 0; c < columns; ++c) state[r * columns + c] *= chunk.products[r];
  multiply_add(dim, chunk.count, columns, chunk.keys, 1, chunk.width, v, chunk.tokens.update_stride, state,
               columns);
}

void chunked_n(const RecurrenceShape& shape, const RecurrenceTokens& tokens, ChunkScratch& scratch,
               float* state) {
  const int64_t width = shape.columns(), rows = kChunkTokens * shape.group;
  const auto grow = [](std::vector<float>& x, int64_t n) {
    if (static_cast<int64_t>(x.size()) < n) x.resize(static_cast<size_t>(n));
    return x.data();
  };
  grow(scratch.decayed, 2 * width + width * kChunkTokens);
  float* queries = grow(scratch.queries, 2 * rows * width);
  if (width != shape.dim)  // columns behind dim, which a shape before this one may have used
    for (auto* buffer : {&scratch.queries, &scratch.keys, &scratch.decayed})
      std::fill(buffer->begin(), buffer->end(), 0.0f);
  for (int64_t first = 0; first < tokens.count; first += kChunkTokens) {
    const Chunk chunk{shape,
                      tokens,
                      first,
                      std::min(kChunkTokens, tokens.count - first),
                      width,
                      queries,
                      queries + rows * width,
                      grow(scratch.keys, kChunkTokens * width),
                      grow(scratch.products, width),
                      grow(scratch.scores, rows * kChunkTokens)};
    run_chunk(chunk, scratch, state);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {
namespace {

HWY_EXPORT(chunked_n);

}  // namespace

void run_recurrence_chunked(const RecurrenceShape& shape, const RecurrenceTokens& tokens,
                            ChunkScratch& scratch, float* state) {
  sync_highway_isa();
  HWY_DYNAMIC_DISPATCH(chunked_n)(shape, tokens, scratch, state);
}

}  // namespace mneme
#endif
