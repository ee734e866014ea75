// The table of products with matrices in stripes, one per instruction set, as packed_kernels.h is for tiles.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mneme {

/// Columns of a matrix and a count for each, in groups of 4 within blocks of 32 columns.
struct EventView {
  const uint32_t* begin;   // [blocks + 1]: the first group of each block
  const uint8_t* columns;  // [4 * groups]: 0..31, in the block
  const int8_t* counts;    // [4 * groups] a row of X
  int64_t stride;          // between the counts of rows of X
};

struct StripeArgs {
  // W
  const std::byte* stripes;
  int64_t rows, blocks;
  int64_t stripe_begin, stripe_end;
  // X: counts clamped to ±127 of every column, or of the columns in `events`
  const int8_t* dense;      // [n, 32 * blocks]
  EventView events;         // begin null: every column
  int64_t ahead;            // blocks; how far in front the lines of events are asked for
  bool few;                 // events: a quarter of the columns at most
  bool ascending;           // whether these lines are best asked for in ascending order
  const EventView* beyond;  // [n] or null: what counts are beyond ±127; begin null: nothing in this row
  const int32_t* sums;      // [n, blocks]: of the whole counts
  const float* threshold;   // [n]
  std::byte* unpacked;      // [blocks, 2048] scratch, 64-byte aligned, for many rows of X; null: none
  int64_t n_begin, n_end;
  // Y
  float* y;
  int64_t stride;
};

using StripeKernel = void (*)(const StripeArgs&);

struct StripeKernels {
  StripeKernel q8_0[2], q4_0[2], q4_1[2], w8[2];  // by lines a column: 1, 2
};

const StripeKernels& stripe_kernels_portable();
const StripeKernels& stripe_kernels_avx2();
const StripeKernels& stripe_kernels_avx512();
const StripeKernels& stripe_kernels_avx512_vnni();

}  // namespace mneme
