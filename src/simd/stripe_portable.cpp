// Products with matrices in stripes in plain C++, one row of X at a time: loops of their own instead of the
// unrolled ones of stripe_kernels-inl.h, which take minutes to compile without vector instructions. The same
// sums in the same order.
#include <algorithm>
#include <cstring>

#include "core/half.h"
#include "simd/stripe_kernels.h"

namespace mneme {
namespace {

template <int Bits, bool HasMin, int Offset, int Lines, bool Grouped = false>
struct PlainStripe {
  static constexpr int groups = Bits == 4 ? 2 : 1, rows = 64 * groups * Lines;
  static constexpr int scale_bytes = Grouped ? 0 : rows * (HasMin ? 4 : 2), column_bytes = 64 * Lines;
  static constexpr int block_bytes = scale_bytes + 32 * column_bytes;

  // dot[place in the lines] += code * count; of each 4-bit line low nibbles first, then high ones
  static void add_column(const std::byte* column, int32_t count, int32_t* dot) {
    for (int i = 0; i < column_bytes; ++i) {
      const auto code = std::to_integer<int32_t>(column[i]);
      if constexpr (Bits == 8) {
        dot[i] += code * count;
      } else {
        int32_t* line = dot + i / 64 * 128 + i % 64;
        line[0] += (code & 15) * count;
        line[64] += (code >> 4) * count;
      }
    }
  }
  static void add_events(const EventView& events, int64_t n, int64_t b, const std::byte* codes,
                         int32_t* dot) {
    const int8_t* counts = events.counts + n * events.stride;
    for (uint32_t e = 4 * events.begin[b]; e < 4 * events.begin[b + 1]; ++e)
      if (counts[e] != 0) add_column(codes + column_bytes * events.columns[e], counts[e], dot);
  }
  // acc += scale * sum (+ min * sum of counts)
  static void finish_block(const std::byte* scales, int32_t count, const int32_t* dot, float* acc) {
    for (int r = 0; r < rows; ++r) {
      const int in_line = r % 64, place = 16 * (in_line / 4 % 4) + 4 * (in_line / 16) + in_line % 4;
      const int32_t sum = dot[r / 64 * 64 + place] - Offset * count;
      const float scale =
          Grouped ? load_le<float>(scales + 4 * r) : f16_to_f32(load_le<uint16_t>(scales + 2 * r));
      acc[r] = static_cast<float>(sum) * scale + acc[r];
      if constexpr (HasMin)
        acc[r] = f16_to_f32(load_le<uint16_t>(scales + 2 * (rows + r))) * static_cast<float>(count) + acc[r];
    }
  }
  static void row(const StripeArgs& args, int64_t stripe, int64_t n) {
    float acc[rows] = {};
    const int64_t head_bytes = Grouped ? args.blocks / 4 * rows * 4 : 0;
    const std::byte* const head = args.stripes + stripe * (head_bytes + args.blocks * block_bytes);
    const std::byte* block = head + head_bytes;
    for (int64_t b = 0; b < args.blocks; ++b, block += block_bytes) {
      const std::byte* codes = block + scale_bytes;
      int32_t dot[rows] = {};
      if (args.events.begin != nullptr) {
        if (args.events.begin[b] == args.events.begin[b + 1]) continue;
        add_events(args.events, n, b, codes, dot);
      } else {
        const int8_t* counts = args.dense + (n * args.blocks + b) * 32;
        for (int c = 0; c < 32; ++c) add_column(codes + column_bytes * c, counts[c], dot);
      }
      if (args.beyond != nullptr && args.beyond[n].begin != nullptr)
        add_events(args.beyond[n], 0, b, codes, dot);
      finish_block(Grouped ? head + b / 4 * rows * 4 : block, args.sums[n * args.blocks + b], dot, acc);
    }
    for (float& value : acc) value *= args.threshold[n];
    const int64_t first = stripe * rows, count = std::min<int64_t>(rows, args.rows - first);
    std::copy_n(acc, count, args.y + n * args.stride + first);
  }
  static void product(const StripeArgs& args) {
    for (int64_t stripe = args.stripe_begin; stripe < args.stripe_end; ++stripe)
      for (int64_t n = args.n_begin; n < args.n_end; ++n) row(args, stripe, n);
  }
};

}  // namespace

const StripeKernels& stripe_kernels_portable() {
  static constexpr StripeKernels kernels = {
      {PlainStripe<8, false, 128, 1>::product, PlainStripe<8, false, 128, 2>::product},
      {PlainStripe<4, false, 8, 1>::product, PlainStripe<4, false, 8, 2>::product},
      {PlainStripe<4, true, 0, 1>::product, PlainStripe<4, true, 0, 2>::product},
      {PlainStripe<8, false, 128, 1, true>::product, PlainStripe<8, false, 128, 2, true>::product}};
  return kernels;
}

}  // namespace mneme
